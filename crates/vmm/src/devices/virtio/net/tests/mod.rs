//! The device on a datagram socketpair, which like a TAP transfers one frame per call. One test uses a real TAP.

mod egress;
mod limits;
mod receive;
mod tap;
mod transmit;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use vm_memory::{Bytes, GuestAddress};

use super::{Net, NetConfig, NetError, NetState, RXQ, TXQ};
use crate::devices::StateError;
use crate::devices::state::encode;
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::testing::Driver;

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 7];
const CONFIG: NetConfig = NetConfig {
    mac: MAC,
    mtu: 1500,
};
const RX_AREA: u64 = 0x100_0000;
const TX_AREA: u64 = 0x200_0000;
const HEADER: usize = 12;

struct Guest {
    driver: Driver<Net>,
    wire: UnixDatagram,
}

fn net() -> (Net, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Net::on(OwnedFd::from(theirs), CONFIG, false).unwrap(), ours)
}

impl Guest {
    fn started() -> Self {
        Self::started_with(u64::MAX)
    }

    fn started_with(features: u64) -> Self {
        Self::on(net(), features)
    }

    fn on((device, wire): (Net, UnixDatagram), features: u64) -> Self {
        Self {
            driver: Driver::started_with(device, features),
            wire,
        }
    }

    /// Makes a receive buffer of `len` bytes available.
    fn give(&mut self, slot: u64, len: u32) -> u16 {
        self.driver
            .submit(RXQ, &[(RX_AREA + slot * 0x20000, len, true)])
    }

    fn received(&self, slot: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.driver
            .memory
            .read_slice(&mut bytes, GuestAddress(RX_AREA + slot * 0x20000))
            .unwrap();
        bytes
    }

    /// Sends a frame after an empty virtio header, in one descriptor.
    fn send(&mut self, frame: &[u8]) {
        self.send_with([0; HEADER], frame);
    }

    fn send_with(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let memory = &self.driver.memory;
        memory.write_slice(&header, GuestAddress(TX_AREA)).unwrap();
        memory
            .write_slice(frame, GuestAddress(TX_AREA + HEADER as u64))
            .unwrap();
        self.driver
            .submit(TXQ, &[(TX_AREA, (HEADER + frame.len()) as u32, false)]);
    }

    fn on_wire(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 1 << 17];
        let len = self.wire.recv(&mut bytes).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }
}

/// An Ethernet frame from `source` with `len` bytes of payload.
fn frame(source: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source);
    frame.extend([0x88, 0xb5]);
    frame.extend((0..len).map(|i| i as u8));
    frame
}

/// The frame as a TAP returns it: with a virtio header.
fn wired(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER][..], frame].concat()
}

#[test]
fn the_configuration_has_mac_and_mtu() {
    let guest = Guest::started();
    assert_eq!(guest.driver.read(0x100).to_le_bytes(), MAC[..4]);
    assert_eq!(guest.driver.read(0x104).to_le_bytes()[..2], MAC[4..]);
    assert_eq!(guest.driver.read(0x108) >> 16, 1500);
    assert_eq!(guest.driver.read(0x10c), 0);
}

#[test]
fn a_descriptor_that_is_not_a_tap_is_refused() {
    let (_, theirs) = UnixDatagram::pair().unwrap();
    assert!(matches!(
        Net::new(theirs.into(), CONFIG),
        Err(NetError::NotATap(_))
    ));
}

#[test]
fn an_mtu_that_is_too_small_is_refused() {
    let (_, theirs) = UnixDatagram::pair().unwrap();
    let config = NetConfig { mtu: 67, ..CONFIG };
    assert!(matches!(
        Net::new(theirs.into(), config),
        Err(NetError::Mtu(67))
    ));
}

#[test]
fn a_restored_device_returns_buffers_of_the_saved_one() {
    let mut guest = Guest::started();
    for slot in 0..4 {
        guest.give(slot, 2048);
    }
    guest.wire.send(&wired(&frame([3; 6], 100))).unwrap();
    guest.driver.run();
    assert!(guest.driver.used(RXQ).is_some());
    let (device, wire) = net();
    let mut guest = Guest {
        driver: guest.driver.move_to(device),
        wire,
    };
    guest.wire.send(&wired(&frame([3; 6], 200))).unwrap();
    guest.driver.run();
    assert_eq!(guest.driver.used(RXQ), Some((1, 12 + 14 + 200)));
    guest.send(&frame(MAC, 10));
    assert_eq!(guest.on_wire().unwrap(), wired(&frame(MAC, 10)));
}

#[test]
fn a_restored_device_keeps_its_mac_address() {
    let state = NetState {
        mac: [2; 6],
        mtu: CONFIG.mtu,
    };
    let mut device = net().0;

    device.restore(&encode("net", &state).unwrap()).unwrap();

    let mut mac = [0; 6];
    device.read_config(0, &mut mac);
    assert_eq!(mac, MAC);
}

#[test]
fn a_state_with_another_mtu_is_refused() {
    let state = NetState {
        mac: MAC,
        mtu: 9000,
    };
    let error = net().0.restore(&encode("net", &state).unwrap());
    assert!(matches!(error, Err(StateError::Invalid { .. })));
}

#[test]
fn a_state_with_bytes_after_its_end_is_refused() {
    let mut state = net().0.save().unwrap();
    state.push(0);
    let error = net().0.restore(&state);
    assert!(matches!(error, Err(StateError::Invalid { .. })));
}
