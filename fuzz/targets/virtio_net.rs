//! The network device behind `MmioTransport`: steps of a driver, and frames from the host's side.
#![no_main]

use std::os::fd::OwnedFd;

use cloude_fuzz::virtio::Machine;
use cloude_fuzz::{Input, bounded};
use cloude_vmm::devices::virtio::fuzzing::net_on_socket;
use cloude_vmm::devices::virtio::net::{Net, NetConfig};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const CONFIG: NetConfig = NetConfig {
    mac: [2; 6],
    mtu: 1500,
};
/// A virtio-net header and the largest frame that a device without offloads sends.
const MAX_FRAME: usize = 12 + 14 + 4 + 65535;

fn device(socket: &OwnedFd) -> Net {
    net_on_socket(socket.try_clone().unwrap(), CONFIG).unwrap()
}

fuzz_target!(|bytes: &[u8]| {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
    let (wire, tap) = pair.unwrap();
    let mut frame = vec![0; MAX_FRAME + 1];
    bounded(4 << 20, || {
        let mut input = Input::new(bytes);
        let mut machine = Machine::new(device(&tap));
        machine.start(u64::MAX);
        while !input.is_empty() {
            match input.u8() {
                0 => {
                    let len = usize::from(input.u16());
                    let mut frame = input.take(64).to_vec();
                    frame.resize(len, 7);
                    // A full socket drops the frame, as a full TAP does.
                    let _ = rustix::net::send(&wire, &frame, SendFlags::DONTWAIT);
                }
                // A frame of the device's own address, whose body the input chooses.
                1 => {
                    let address = 0x8000;
                    let mut start = [0; 26];
                    start[18..24].copy_from_slice(&CONFIG.mac);
                    machine.poke(address, &start);
                    machine.describe(1, 0, (address, input.u16().into(), 0, 0));
                    machine.publish(1, 0);
                }
                _ => machine.step(&mut input, || device(&tap)),
            }
            machine.run();
            // Every frame that the guest got out has the device's address.
            while let Ok((len, _)) = rustix::net::recv(&wire, &mut frame[..], RecvFlags::DONTWAIT) {
                assert!((26..=MAX_FRAME).contains(&len), "a frame of {len} bytes");
                assert_eq!(frame[18..24], CONFIG.mac, "a spoofed source address");
            }
        }
    });
});
