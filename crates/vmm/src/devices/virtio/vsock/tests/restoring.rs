//! Save and restore of the device.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::AttachError;
use super::super::state::VsockState;
use super::*;
use crate::devices::state::{decode, encode};
use crate::devices::virtio::VirtioDevice;
use crate::devices::{Device, StateError};

#[test]
fn a_restored_connection_keeps_buffered_bytes() {
    let (mut guest, mut stream, port) = Guest::connected();
    stream.write_all(b"before").unwrap();
    assert_eq!(guest.next().1, b"before");
    // Buffered because the old stream is full: the new stream gets the bytes.
    let mut sent = 0;
    while guest.driver.device().device().connections[&port]
        .buffer
        .len()
        < 50_000
    {
        guest.send_data(port, &pattern(sent + 8192)[sent..]);
        guest.drain();
        sent += 8192;
    }
    let buffered = guest.driver.device().device().connections[&port]
        .buffer
        .len();

    let mut guest = guest.restored();
    let info = guest.driver.device().device().connections();
    assert_eq!(info.len(), 1);
    assert_eq!(
        (info[0].id, info[0].local_port, info[0].attached),
        (1, port, false)
    );
    // The guest sends before a stream is attached.
    guest.send_data(port, b"unattached");
    let ours = guest.attach(port);
    guest.driver.run();

    let mut stream = ours;
    let mut got = vec![0; buffered + 10];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got[..buffered], &pattern(sent)[sent - buffered..]);
    assert_eq!(&got[buffered..], b"unattached");
    stream.write_all(b"after").unwrap();
    assert_eq!(guest.drain().0, b"after");
}

#[test]
fn a_restored_connection_keeps_its_credit() {
    let (mut guest, _stream, port) = Guest::connected();
    guest.send_data(port, b"12345");
    let mut guest = guest.restored();
    guest.driver.run();
    guest.drain();
    let mut ours = guest.attach(port);
    ours.write_all(b"next").unwrap();
    guest.driver.run();
    let (header, bytes) = guest.next();
    assert_eq!((header.op, header.fwd_cnt), (op::RW, 5));
    assert_eq!(bytes, b"next");
}

#[test]
fn unread_bytes_in_either_direction_make_the_device_busy() {
    let (mut guest, mut stream, port) = Guest::connected();
    let busy = |guest: &Guest| guest.driver.device().device().busy();
    assert_eq!(busy(&guest), None);
    stream.write_all(b"x").unwrap();
    assert!(busy(&guest).unwrap().starts_with("bytes from the host"));
    guest.driver.run();
    guest.drain();
    assert_eq!(busy(&guest), None);
    let mut sent = 0;
    while busy(&guest).is_none() {
        guest.send_data(port, &pattern(sent + 8192)[sent..]);
        guest.drain();
        sent += 8192;
    }
    assert!(busy(&guest).unwrap().starts_with("bytes from the guest"));
}

#[test]
fn a_pending_connect_is_reset_after_a_restore() {
    let mut guest = Guest::started();
    guest.report_ready();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    guest.handle.connect(7, GUEST_PORT, theirs.into());
    let port = guest.next().0.src_port;
    let mut guest = guest.restored();
    let (header, _) = guest.next();
    assert_eq!((header.op, header.src_port), (op::RST, port));
}

#[test]
fn a_restored_guest_is_still_ready() {
    let mut guest = Guest::started();
    guest.report_ready();
    let mut guest = guest.restored();
    guest.accept(3);
}

#[test]
fn a_stream_attached_late_gets_the_bytes_and_the_end() {
    let (mut guest, _stream, port) = Guest::connected();
    guest = guest.restored();
    guest.drain();
    guest.send_data(port, b"result");
    guest.shut_down(port, 2);
    let mut ours = guest.attach(port);
    let mut got = Vec::new();
    ours.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"result");
}

#[test]
fn attach_needs_a_connection_without_a_stream() {
    let (guest, _stream, port) = Guest::connected();
    let attach = |port| {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        guest
            .driver
            .device()
            .device_mut()
            .attach(port, theirs.into())
    };
    assert!(matches!(attach(port), Err(AttachError::Attached(_))));
    assert!(matches!(attach(1), Err(AttachError::NoConnection(1))));
}

fn saved() -> (Vec<u8>, VsockState) {
    let (guest, _stream, _port) = Guest::connected();
    guest.driver.device().pause();
    let bytes = guest.driver.device().device().save().unwrap();
    let state = decode("vsock", &bytes).unwrap();
    (bytes, state)
}

/// The error of a device that restores a saved state after `change`.
fn refused(change: impl Fn(&mut VsockState)) -> StateError {
    let (_, mut state) = saved();
    change(&mut state);
    let bytes = encode("vsock", &state).unwrap();
    vsock().restore(&bytes).unwrap_err()
}

#[test]
fn a_saved_state_is_accepted() {
    assert!(vsock().restore(&saved().0).is_ok());
}

#[test]
fn an_impossible_state_is_refused() {
    let changes: [fn(&mut VsockState); 4] = [
        |state| state.guest_cid = 4,
        |state| state.connections[0].buffer = vec![0; 262_145],
        |state| state.connections[0].host_shutdown = 4,
        |state| {
            let twice = state.connections[0].clone();
            state.connections.push(twice);
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let error = refused(change);
        assert!(
            matches!(error, StateError::Invalid { .. }),
            "{index}: {error}"
        );
    }
}

#[test]
fn a_truncated_state_is_refused() {
    let (bytes, _) = saved();
    let error = vsock().restore(&bytes[..bytes.len() - 1]).unwrap_err();
    assert!(matches!(error, StateError::Format { .. }), "{error}");
}
