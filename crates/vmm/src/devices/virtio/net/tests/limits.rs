//! Token buckets in the device, with a clock that the test sets.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::limiter::Clock;
use super::super::spec::{DenyReason, EgressSpec, NetLimits};
use super::*;
use crate::devices::Device as _;

const SECOND: u64 = 1_000_000_000;
const ME: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 5);

struct Limited {
    guest: Guest,
    clock: Arc<AtomicU64>,
}

impl Limited {
    fn new(limits: NetLimits) -> Self {
        let clock = Arc::new(AtomicU64::new(7));
        let (device, wire) = net();
        let spec = EgressSpec {
            address: ME,
            outbound: true,
            ..EgressSpec::default()
        };
        let device = device
            .with_egress(spec)
            .with_limits_of(&limits, Clock::Fake(Arc::clone(&clock)))
            .unwrap();
        let guest = Guest::on((device, wire), u64::MAX);
        Self { guest, clock }
    }

    fn pass_time(&self, nanos: u64) {
        self.clock.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Sends a UDP packet of `len` bytes, Ethernet header included, from and to a port.
    fn send(&mut self, ports: (u16, u16), len: usize) {
        let mut frame = vec![0; 6];
        frame.extend(MAC);
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((len as u16 - 14).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(ME.octets());
        frame.extend([8, 8, 4, 4]);
        frame.extend(ports.0.to_be_bytes());
        frame.extend(ports.1.to_be_bytes());
        frame.resize(len, 0);
        self.guest.send(&frame);
    }

    fn sent(&mut self) -> usize {
        while self.guest.driver.used(TXQ).is_some() {}
        std::iter::from_fn(|| self.guest.on_wire()).count()
    }

    /// Waits for the device's timer, which runs in real time, until `count` frames are sent.
    fn wait_until_sent(&mut self, count: usize) {
        let mut sent = 0;
        while sent < count {
            self.guest.driver.wait(-1);
            self.guest.driver.run();
            sent += self.sent();
        }
        assert_eq!(sent, count);
    }
}

#[test]
fn packets_beyond_the_rate_wait_and_none_is_lost() {
    let mut limited = Limited::new(NetLimits {
        packets_per_s: 10,
        ..NetLimits::default()
    });
    for _ in 0..25 {
        limited.send((1, 443), 100);
    }
    assert_eq!(limited.sent(), 10);

    // The timer fires in real time, and finds that no time has passed.
    limited.guest.driver.wait(-1);
    limited.guest.driver.run();
    assert_eq!(limited.sent(), 0);

    limited.pass_time(SECOND);
    limited.wait_until_sent(10);
    limited.pass_time(SECOND);
    limited.wait_until_sent(5);
    assert_eq!(limited.guest.driver.device().device().denied().counts, []);
}

#[test]
fn bytes_beyond_the_rate_wait() {
    let mut limited = Limited::new(NetLimits {
        bytes_per_s: 1000,
        ..NetLimits::default()
    });
    for _ in 0..4 {
        limited.send((1, 443), 600);
    }
    assert_eq!(limited.sent(), 2);
    limited.pass_time(SECOND);
    limited.wait_until_sent(2);
}

#[test]
fn a_segmented_frame_counts_as_its_segments() {
    let limits = NetLimits {
        packets_per_s: 10,
        ..NetLimits::default()
    };
    let mut limited = Limited::new(limits);
    let mut header = [0; HEADER];
    header[..6].copy_from_slice(&[1, 1, 0, 0, 0xe8, 3]);
    header[6..10].copy_from_slice(&[34, 0, 16, 0]);
    let mut frame = vec![0; 6];
    frame.extend(MAC);
    frame.extend([8, 0, 0x45, 0, 0x75, 0x30, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(ME.octets());
    frame.extend([8, 8, 4, 4]);
    frame.resize(30_014, 0);

    // 30 segments, of which 10 may be sent at once: the debt delays the next packet by two seconds.
    limited.guest.send_with(header, &frame);
    assert_eq!(limited.sent(), 1);
    limited.send((1, 443), 100);
    assert_eq!(limited.sent(), 0);
    limited.pass_time(SECOND);
    limited.guest.driver.wait(-1);
    limited.guest.driver.run();
    assert_eq!(limited.sent(), 0);
    limited.pass_time(2 * SECOND);
    limited.wait_until_sent(1);
}

#[test]
fn new_flows_beyond_the_rate_are_dropped_and_counted() {
    let mut limited = Limited::new(NetLimits {
        connections_per_s: 5,
        ..NetLimits::default()
    });
    for port in 0..8 {
        limited.send((port, 443), 100);
    }
    assert_eq!(limited.sent(), 5);
    for _ in 0..20 {
        limited.send((3, 443), 100);
    }
    assert_eq!(limited.sent(), 20, "a known flow goes on");
    let denied = limited.guest.driver.device().device().denied().counts;
    assert_eq!((denied.len(), denied[0].times), (1, 3), "{denied:?}");
    assert_eq!(denied[0].denial.reason, DenyReason::Rate);
    assert_eq!(denied[0].denial.port, Some(443));

    limited.pass_time(SECOND);
    limited.send((9, 443), 100);
    assert_eq!(limited.sent(), 1);
}

#[test]
fn a_flood_of_denied_frames_is_slowed_down() {
    let mut limited = Limited::new(NetLimits {
        packets_per_s: 10,
        ..NetLimits::default()
    });
    for _ in 0..20 {
        limited.guest.send(&frame(MAC, 100));
    }
    let denied = limited.guest.driver.device().device().denied().counts;
    assert_eq!(denied[0].times, 10);
}

#[test]
fn received_packets_beyond_the_rate_wait() {
    let mut limited = Limited::new(NetLimits {
        packets_per_s: 3,
        ..NetLimits::default()
    });
    let guest = &mut limited.guest;
    for slot in 0..8 {
        guest.give(slot, 2048);
    }
    for _ in 0..5 {
        guest.wire.send(&wired(&frame([3; 6], 100))).unwrap();
    }
    guest.driver.run();
    let received = |guest: &mut Guest| std::iter::from_fn(|| guest.driver.used(RXQ)).count();
    assert_eq!(received(guest), 3);

    limited.pass_time(SECOND);
    let guest = &mut limited.guest;
    let mut late = 0;
    while late < 2 {
        guest.driver.wait(-1);
        guest.driver.run();
        late += received(guest);
    }
    assert_eq!(late, 2);
}

#[test]
fn waiting_frames_go_on_after_a_pause() {
    let mut limited = Limited::new(NetLimits {
        packets_per_s: 10,
        ..NetLimits::default()
    });
    for _ in 0..12 {
        limited.send((1, 443), 100);
    }
    assert_eq!(limited.sent(), 10);
    limited.guest.driver.device().pause();
    // The timer fires while the device is paused.
    limited.guest.driver.wait(-1);
    limited.guest.driver.device().resume();
    limited.pass_time(SECOND);
    limited.guest.driver.run();
    while limited.sent() < 2 {
        limited.guest.driver.wait(-1);
        limited.guest.driver.run();
    }
}

#[test]
fn a_device_without_limits_has_no_timer() {
    let (device, _wire) = net();
    let device = device.with_limits(&NetLimits::default()).unwrap();
    assert_eq!(device.watches().len(), 1);
}
