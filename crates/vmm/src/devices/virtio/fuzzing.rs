//! Private items that the fuzz targets use (`fuzz/targets/virtio_*.rs`).

use std::os::fd::OwnedFd;

use super::net::{Net, NetConfig, NetError};
use super::{MmioTransport, VirtioDevice};

/// A network device on a datagram socket instead of a TAP, without offloads.
pub fn net_on_socket(socket: OwnedFd, config: NetConfig) -> Result<Net, NetError> {
    Net::on(socket, config, false)
}

/// For each queue: the chains that the device holds, and the queue's size.
pub fn outstanding<D: VirtioDevice>(transport: &MmioTransport<D>) -> Vec<(usize, usize)> {
    (0..transport.device().queue_sizes().len())
        .map(|queue| {
            (
                transport.rings.outstanding(queue),
                transport.rings.size(queue),
            )
        })
        .collect()
}
