use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::json;

use super::super::AttachError;
use super::*;
use crate::devices::virtio::VirtioDevice;
use crate::devices::{Device, StateError};

#[test]
fn a_connection_survives_a_move_with_bytes_under_way() {
    let (mut guest, mut stream, port) = Guest::connected();
    stream.write_all(b"before").unwrap();
    assert_eq!(guest.next().1, b"before");
    // Kept for the old stream, which takes no more: the new one gets it.
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
    let kept = guest.driver.device().device().connections[&port]
        .buffer
        .len();

    let mut guest = guest.moved();
    let info = guest.driver.device().device().connections();
    assert_eq!(info.len(), 1);
    assert_eq!(
        (info[0].id, info[0].local_port, info[0].attached),
        (1, port, false)
    );
    // The guest goes on before anybody has attached.
    guest.send_data(port, b"unattached");
    let ours = guest.attach(port);
    guest.driver.run();

    let mut stream = ours;
    let mut got = vec![0; kept + 10];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got[..kept], &pattern(sent)[sent - kept..]);
    assert_eq!(&got[kept..], b"unattached");
    stream.write_all(b"after").unwrap();
    assert_eq!(guest.drain().0, b"after");
}

#[test]
fn the_credit_goes_on_after_a_move_with_nothing_to_tell() {
    let (mut guest, _stream, port) = Guest::connected();
    guest.send_data(port, b"12345");
    let mut guest = guest.moved();
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
fn what_is_under_way_is_told_before_a_save() {
    let (mut guest, mut stream, port) = Guest::connected();
    let under_way = |guest: &Guest| guest.driver.device().device().under_way();
    assert_eq!(under_way(&guest), None);
    stream.write_all(b"x").unwrap();
    assert!(under_way(&guest).unwrap().starts_with("the host has sent"));
    guest.driver.run();
    guest.drain();
    assert_eq!(under_way(&guest), None);
    let mut sent = 0;
    while under_way(&guest).is_none() {
        guest.send_data(port, &pattern(sent + 8192)[sent..]);
        guest.drain();
        sent += 8192;
    }
    assert!(under_way(&guest).unwrap().starts_with("the guest has sent"));
}

#[test]
fn a_connect_under_way_is_reset_after_a_move() {
    let mut guest = Guest::started();
    guest.report_ready();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    guest.handle.connect(7, GUEST_PORT, theirs.into());
    let port = guest.next().0.src_port;
    let mut guest = guest.moved();
    let (header, _) = guest.next();
    assert_eq!((header.op, header.src_port), (op::RST, port));
}

#[test]
fn a_moved_guest_is_still_ready() {
    let mut guest = Guest::started();
    guest.report_ready();
    let mut guest = guest.moved();
    guest.accept(3);
}

#[test]
fn a_guest_that_closed_unattached_leaves_its_bytes_and_an_end() {
    let (mut guest, _stream, port) = Guest::connected();
    guest = guest.moved();
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

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let (guest, _stream, _port) = Guest::connected();
    guest.driver.device().pause();
    let saved = guest.driver.device().device().save().unwrap();
    let refuse = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut state = saved.clone();
        change(&mut state);
        vsock().restore(&state).unwrap_err()
    };
    let invalid = |error| matches!(error, StateError::Invalid { .. });
    assert!(vsock().restore(&saved).is_ok());
    assert!(invalid(refuse(&|s| s["guest_cid"] = json!(4))));
    assert!(invalid(refuse(
        &|s| s["connections"][0]["buffer"] = json!("abc")
    )));
    assert!(invalid(refuse(
        &|s| s["connections"][0]["buffer"] = json!("zz")
    )));
    assert!(invalid(refuse(
        &|s| s["connections"][0]["buffer"] = json!("00".repeat(262_145))
    )));
    assert!(invalid(refuse(
        &|s| s["connections"][0]["host_shutdown"] = json!(4)
    )));
    assert!(invalid(refuse(&|s| {
        let twice = s["connections"][0].clone();
        s["connections"].as_array_mut().unwrap().push(twice);
    })));
    assert!(matches!(
        refuse(&|s| s["ready"] = json!(3)),
        StateError::Format { .. }
    ));
}
