//! Guest to TAP.

use super::*;

#[test]
fn a_frame_is_sent_unchanged() {
    let mut guest = Guest::started();
    guest.send(&frame(MAC, 1000));
    assert_eq!(guest.on_wire().unwrap(), wired(&frame(MAC, 1000)));
    assert!(guest.driver.used(TXQ).is_some());
}

#[test]
fn a_frame_in_many_descriptors_is_sent_as_one() {
    let mut guest = Guest::started();
    let bytes = wired(&frame(MAC, 500));
    guest
        .driver
        .memory
        .write_slice(&bytes, GuestAddress(TX_AREA))
        .unwrap();
    // Split inside the virtio header and inside the source address.
    let cuts = [0, 5, 20, 21, 300, bytes.len()];
    let buffers: Vec<_> = cuts
        .windows(2)
        .map(|cut| (TX_AREA + cut[0] as u64, (cut[1] - cut[0]) as u32, false))
        .collect();
    guest.driver.submit(TXQ, &buffers);
    assert_eq!(guest.on_wire().unwrap(), bytes);
}

#[test]
fn a_frame_of_another_source_is_dropped() {
    let mut guest = Guest::started();
    guest.send(&frame([0x02, 0, 0, 0, 0, 8], 100));
    assert!(guest.driver.used(TXQ).is_some());
    assert!(guest.on_wire().is_none());
}

#[test]
fn frames_too_short_and_too_long_are_dropped() {
    let mut guest = Guest::started();
    guest.driver.submit(TXQ, &[(TX_AREA, 25, false)]);
    guest.driver.submit(TXQ, &[(TX_AREA, 70_000, false)]);
    guest
        .driver
        .submit(TXQ, &[(TX_AREA, 1 << 20, false), (TX_AREA, 1 << 25, false)]);
    guest.driver.submit(TXQ, &[(TX_AREA, 100, true)]);
    assert!(guest.on_wire().is_none());
    assert_eq!(std::iter::from_fn(|| guest.driver.used(TXQ)).count(), 4);
    assert!(!guest.driver.needs_reset());
}

#[test]
fn frames_wait_for_a_full_tap_and_none_is_lost() {
    let mut guest = Guest::started();
    let mut sent = 0;
    // A datagram socket is bounded, like a TAP.
    while !guest.driver.device().device().tx_blocked {
        guest.send(&frame(MAC, sent));
        guest.driver.used(TXQ);
        sent += 1;
        assert!(sent < 10_000);
    }
    let mut lengths = Vec::new();
    while lengths.len() < sent {
        match guest.on_wire() {
            Some(bytes) => lengths.push(bytes.len() - 26),
            None => guest.driver.wait(-1),
        }
        guest.driver.run();
    }
    // The waiting frame is sent once, with the content that the guest has overwritten meanwhile.
    assert_eq!(lengths, (0..sent).collect::<Vec<_>>());
}

#[test]
fn a_closed_tap_drops_frames_and_returns_buffers() {
    let (device, wire) = net();
    let mut guest = Guest {
        driver: Driver::started(device),
        wire: UnixDatagram::unbound().unwrap(),
    };
    drop(wire);
    guest.send(&frame(MAC, 10));
    assert!(guest.driver.used(TXQ).is_some());
    assert!(!guest.driver.needs_reset());
}
