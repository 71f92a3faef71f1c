//! The VM state file of a snapshot: decoded, encoded again, and its devices restored into blank ones. The target
//! writes the header, so that the input gets past the checksum.
#![no_main]

use cloude_fuzz::bounded;
use cloude_fuzz::virtio::restored;
use cloude_vmm::devices::Device;
use cloude_vmm::devices::serial::{ConsoleSink, Serial};
use cloude_vmm::devices::virtio::fuzzing::net_on_socket;
use cloude_vmm::devices::virtio::net::NetConfig;
use cloude_vmm::devices::virtio::rng::Rng;
use cloude_vmm::devices::virtio::vsock::{Vsock, VsockConfig};
use cloude_vmm::snapshot::{DeviceState, FORMAT_VERSION, VmState};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sha2::{Digest, Sha256};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A file with this body.
fn file(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"CLOUDEVM".to_vec();
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    let sum = Sha256::new()
        .chain_update(&bytes)
        .chain_update(body)
        .finalize();
    bytes.extend(sum);
    bytes.extend(body);
    bytes
}

/// Restores a device's state into a blank device and lets that run.
fn restore(device: &DeviceState) {
    match device.name.as_str() {
        "rng" => restored(Rng, &device.state),
        "vsock" => {
            let config = VsockConfig {
                guest_cid: 3,
                ready_port: 1025,
            };
            restored(Vsock::new(config).unwrap(), &device.state);
        }
        "net" => {
            let flags = SocketFlags::CLOEXEC;
            let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
            let config = NetConfig {
                mac: [2; 6],
                mtu: 1500,
            };
            restored(
                net_on_socket(pair.unwrap().0, config).unwrap(),
                &device.state,
            );
        }
        _ => {
            let sink = ConsoleSink::new(None).unwrap();
            let mut serial = Serial::new(EventFd::new(EFD_NONBLOCK).unwrap(), sink);
            if serial.restore(&device.state).is_ok() {
                serial.resume();
            }
        }
    }
}

fuzz_target!(|body: &[u8]| {
    bounded(32 << 20, || {
        // The file as it is, with whatever header it has.
        let _ = VmState::decode(body);
        let Ok(state) = VmState::decode(&file(body)) else {
            return;
        };
        let encoded = state.encode().unwrap();
        let again = VmState::decode(&encoded).expect("an encoded state decodes");
        assert_eq!(again.encode().unwrap(), encoded);
        assert!(state.key.check(&again.key).is_ok());
        state.state.devices.iter().take(8).for_each(restore);
    });
});
