//! Connects, the ready report and refused packets.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;

#[test]
fn ready_is_reported_once_and_each_attempt_gets_rst() {
    let mut guest = Guest::started();
    guest.report_ready();
    guest.send(Header {
        dst_port: READY_PORT,
        src_port: 5001,
        op: op::REQUEST,
        ..guest.base()
    });
    assert_eq!(guest.next().0.op, op::RST);
    assert_eq!(guest.event(), None);
}

#[test]
fn the_guest_reads_its_cid() {
    let guest = Guest::started();
    assert_eq!(guest.driver.read(0x100), CID);
    assert_eq!(guest.driver.read(0x104), 0);
    assert_eq!(guest.driver.read(0x108), 0);
}

#[test]
fn a_connect_to_another_port_gets_rst_only() {
    let mut guest = Guest::started();
    guest.send(Header {
        dst_port: 22,
        src_port: 5000,
        op: op::REQUEST,
        ..guest.base()
    });
    let (answer, _) = guest.next();
    assert_eq!(
        (answer.op, answer.src_port, answer.dst_port),
        (op::RST, 22, 5000)
    );
    assert_eq!(guest.event(), None);
}

#[test]
fn a_connect_waits_for_the_ready_report() {
    let mut guest = Guest::started();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    guest.handle.connect(7, GUEST_PORT, theirs.into());
    assert!(guest.try_next().is_none());
    guest.send(Header {
        dst_port: READY_PORT,
        src_port: 5000,
        op: op::REQUEST,
        ..guest.base()
    });
    assert_eq!(guest.next().0.op, op::RST);
    let (request, _) = guest.next();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, GUEST_PORT));
    assert_eq!(request.buf_alloc, super::super::BUFFER_SIZE);
}

#[test]
fn a_connect_before_driver_ok_waits() {
    let device = vsock();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    device.handle().connect(7, GUEST_PORT, theirs.into());
    let mut driver = Driver::new(device);
    driver.run();
    assert_eq!(driver.device().device().waiting.len(), 1);
}

#[test]
fn a_refused_connect_fails_and_closes_its_stream() {
    let mut guest = Guest::started();
    guest.report_ready();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    guest.handle.connect(7, GUEST_PORT, theirs.into());
    let (request, _) = guest.next();
    guest.answer(request.src_port, op::RST);
    assert!(matches!(
        guest.event(),
        Some(VsockEvent::ConnectFailed(7, _))
    ));
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    assert!(guest.try_next().is_none());
}

#[test]
fn an_unanswered_connect_times_out() {
    let mut guest = Guest::started();
    guest.report_ready();
    guest.driver.device().device_mut().timeout = Duration::from_millis(20);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    guest.handle.connect(7, GUEST_PORT, theirs.into());
    assert_eq!(guest.next().0.op, op::REQUEST);
    while !guest.driver.device().device().connections().is_empty() {
        guest.driver.wait(-1);
    }
    assert!(matches!(
        guest.event(),
        Some(VsockEvent::ConnectFailed(7, _))
    ));
    assert_eq!(guest.next().0.op, op::RST);
}

#[test]
fn an_answer_other_than_response_fails_the_connect() {
    let mut guest = Guest::started();
    guest.report_ready();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    guest.handle.connect(7, GUEST_PORT, theirs.into());
    let (request, _) = guest.next();
    guest.send_data(request.src_port, b"too early");
    assert!(matches!(
        guest.event(),
        Some(VsockEvent::ConnectFailed(7, _))
    ));
    assert_eq!(guest.next().0.op, op::RST);
}

#[test]
fn a_stream_that_epoll_refuses_fails_the_connect() {
    let mut guest = Guest::started();
    guest.report_ready();
    // epoll_ctl refuses a regular file (EPERM).
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    guest.handle.connect(7, GUEST_PORT, file.into());
    guest.poll();
    assert!(matches!(
        guest.event(),
        Some(VsockEvent::ConnectFailed(7, _))
    ));
}

#[test]
fn packets_with_a_foreign_cid_are_dropped() {
    let (mut guest, _stream, port) = Guest::connected();
    let header = Header {
        dst_port: port,
        op: op::RST,
        ..guest.base()
    };
    guest.send(Header {
        src_cid: 43,
        ..header
    });
    guest.send(Header {
        dst_cid: 3,
        ..header
    });
    guest.send(Header {
        dst_cid: 2 | 1 << 32,
        ..header
    });
    assert!(guest.try_next().is_none());
    assert_eq!(guest.driver.device().device().connections().len(), 1);
}

#[test]
fn another_guest_port_cannot_use_a_connection() {
    let (mut guest, _stream, port) = Guest::connected();
    guest.send(Header {
        dst_port: port,
        src_port: 81,
        op: op::RW,
        ..guest.base()
    });
    let (answer, _) = guest.next();
    assert_eq!((answer.op, answer.dst_port), (op::RST, 81));
    assert_eq!(guest.driver.device().device().connections().len(), 1);
}

#[test]
fn a_packet_of_another_type_gets_rst() {
    let (mut guest, mut stream, port) = Guest::connected();
    guest.send(Header {
        dst_port: port,
        kind: 2,
        op: op::RW,
        ..guest.base()
    });
    assert_eq!(guest.next().0.op, op::RST);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_unknown_operation_gets_rst() {
    let (mut guest, _stream, port) = Guest::connected();
    guest.answer(port, 77);
    assert_eq!(guest.next().0.op, op::RST);
}

#[test]
fn a_packet_shorter_than_its_header_needs_a_reset() {
    let mut guest = Guest::started();
    guest.driver.submit(TXQ, &[(TX_AREA, 43, false)]);
    assert!(guest.driver.needs_reset());
}

#[test]
fn a_receive_buffer_of_header_size_needs_a_reset() {
    let mut guest = Guest::without_buffers();
    guest.driver.add(RXQ, &[(RX_AREA, 44, true)]);
    guest.send(Header {
        dst_port: 1,
        op: op::REQUEST,
        ..guest.base()
    });
    assert!(guest.driver.needs_reset());
}

#[test]
fn a_guest_without_rx_buffers_blocks_only_itself() {
    let mut guest = Guest::without_buffers();
    let header = Header {
        dst_port: 1,
        op: op::REQUEST,
        ..guest.base()
    };
    guest
        .driver
        .memory
        .write_slice(&header.to_bytes(), GuestAddress(TX_AREA))
        .unwrap();
    let mut taken = 0;
    for _ in 0..300 {
        guest.driver.submit(TXQ, &[(TX_AREA, 44, false)]);
        while guest.driver.used(TXQ).is_some() {
            taken += 1;
        }
    }
    assert_eq!(taken, super::super::device::RESET_LIMIT);
    // Receive buffers release the queued RST packets.
    guest.give_buffer(RX_AREA);
    guest.give_buffer(RX_AREA + 0x10000);
    guest.driver.notify(RXQ);
    guest.driver.run();
    assert!(guest.driver.used(TXQ).is_some());
}
