//! Private items that the fuzz target uses (`fuzz/targets/virtio_vsock.rs`).

use super::device::RESET_LIMIT;
use super::{BUFFER_SIZE, Vsock};

impl Vsock {
    /// Checks what the device holds for the guest and for its streams against their limits.
    #[doc(hidden)]
    pub fn assert_bounded(&self) {
        // Above the limit no packet of the guest is read, and each connection adds at most one.
        assert!(
            self.resets.len() <= RESET_LIMIT + self.connections.len() + self.draining.len() + 1
        );
        // Ports of connections that have ended stay in `rx_pending` until the guest has buffers.
        for port in self.connections.keys() {
            let queued = self.rx_pending.iter().filter(|it| *it == port);
            assert!(queued.count() <= 1);
        }
        for connection in self.connections.values().chain(self.draining.values()) {
            assert!(connection.buffer.len() <= BUFFER_SIZE as usize);
        }
    }
}
