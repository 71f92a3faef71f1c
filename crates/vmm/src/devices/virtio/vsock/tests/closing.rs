//! Shutdown and reset of connections.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;

use super::super::header::{SHUTDOWN_BOTH, SHUTDOWN_RCV, SHUTDOWN_SEND};
use super::*;

#[test]
fn the_host_can_receive_after_it_stopped_sending() {
    let (mut guest, mut stream, port) = Guest::connected();
    stream.write_all(b"all").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.next().1, b"all");
    let (header, _) = guest.next();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, SHUTDOWN_SEND));
    guest.send_data(port, b"heard");
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"heard");
}

#[test]
fn the_guest_can_receive_after_it_stopped_sending() {
    let (mut guest, mut stream, port) = Guest::connected();
    guest.send_data(port, b"all");
    guest.shut_down(port, SHUTDOWN_SEND);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"all");
    stream.write_all(b"heard").unwrap();
    assert_eq!(guest.next().1, b"heard");
}

#[test]
fn the_guest_can_stop_receiving() {
    let (mut guest, mut stream, port) = Guest::connected();
    guest.shut_down(port, SHUTDOWN_RCV);
    assert_eq!(
        stream.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    guest.send_data(port, b"still");
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
}

#[test]
fn a_guest_that_closes_gets_rst_and_the_stream_ends() {
    let (mut guest, mut stream, port) = Guest::connected();
    guest.send_data(port, b"last words");
    guest.shut_down(port, SHUTDOWN_BOTH);
    assert_eq!(guest.next().0.op, op::RST);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last words");
    assert!(guest.driver.device().device().connections().is_empty());
}

#[test]
fn buffered_bytes_reach_the_host_after_the_guest_closed() {
    let (mut guest, mut stream, port) = Guest::connected();
    let mut sent = 0;
    // More than the socket holds: the rest is buffered.
    while guest.driver.device().device().connections[&port]
        .buffer
        .len()
        < 100_000
    {
        guest.send_data(port, &pattern(sent + 8192)[sent..]);
        guest.drain();
        sent += 8192;
    }
    guest.answer(port, op::RST);
    let mut got = Vec::new();
    while let Err(error) = stream.read_to_end(&mut got) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        guest.driver.run();
    }
    assert_eq!(got, pattern(sent));
    assert!(guest.driver.device().device().draining.is_empty());
}

#[test]
fn a_closed_stream_sends_both_shutdown_flags() {
    let (mut guest, mut stream, port) = Guest::connected();
    stream.write_all(b"bye").unwrap();
    drop(stream);
    assert_eq!(guest.next().1, b"bye");
    let (header, _) = guest.next();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, SHUTDOWN_BOTH));
    // Sent before the guest has seen the shutdown: accepted and dropped.
    guest.send_data(port, b"too late");
    assert!(guest.try_next().is_none());
    guest.answer(port, op::RST);
    assert!(guest.driver.device().device().connections().is_empty());
}

#[test]
fn a_stream_closed_with_unread_bytes_sends_rst_at_once() {
    let (mut guest, stream, port) = Guest::connected();
    guest.send_data(port, b"unread");
    // The next read of the stream fails with ECONNRESET.
    drop(stream);
    assert_eq!(guest.next().0.op, op::RST);
    assert!(guest.driver.device().device().connections().is_empty());
}

#[test]
fn a_guest_that_ignores_a_shutdown_gets_rst() {
    let (mut guest, stream, _port) = Guest::connected();
    guest.driver.device().device_mut().timeout = Duration::from_millis(20);
    drop(stream);
    assert_eq!(guest.next().0.op, op::SHUTDOWN);
    while !guest.driver.device().device().connections().is_empty() {
        guest.driver.wait(-1);
    }
    assert_eq!(guest.next().0.op, op::RST);
}

#[test]
fn rst_from_the_guest_closes_the_stream() {
    let (mut guest, mut stream, port) = Guest::connected();
    guest.answer(port, op::RST);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(guest.try_next().is_none());
}

#[test]
fn a_device_reset_closes_every_stream() {
    let (mut guest, mut stream, _port) = Guest::connected();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    guest.handle.connect(2, GUEST_PORT, theirs.into());
    stream.write_all(&pattern(20_000)).unwrap();
    guest.driver.run();
    guest.driver.write(VIRTIO_MMIO_STATUS, 0);
    assert!(matches!(
        guest.event(),
        Some(VsockEvent::ConnectFailed(2, _))
    ));
    guest.driver.run();
    let error = stream.write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    drop(ours);
    assert!(guest.driver.device().device().connections().is_empty());
}
