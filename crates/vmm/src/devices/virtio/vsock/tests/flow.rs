//! Data and credit.

use std::io::{ErrorKind, Read, Write};

use super::super::BUFFER_SIZE;
use super::super::header::SHUTDOWN_SEND;
use super::*;
use crate::devices::Device as _;

const MUCH: usize = 50 << 20;

#[test]
fn bytes_flow_in_both_directions() {
    let (mut guest, mut stream, port) = Guest::connected();
    stream.write_all(b"question").unwrap();
    let (header, data) = guest.next();
    assert_eq!((header.op, header.src_port), (op::RW, port));
    assert_eq!(data, b"question");
    guest.send_data(port, b"answer");
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_tx_buffer_is_returned_at_once() {
    let (mut guest, _stream, port) = Guest::connected();
    while guest.driver.used(TXQ).is_some() {}
    guest.driver.interrupts();
    guest.send_data(port, b"one");
    assert_eq!(guest.driver.interrupts(), 1);
    assert!(guest.driver.used(TXQ).is_some());
}

#[test]
fn rx_and_tx_of_one_event_share_an_interrupt() {
    let (mut guest, mut stream, port) = Guest::connected();
    while guest.driver.used(TXQ).is_some() {}
    guest.poll();
    guest.driver.interrupts();
    guest.driver.device().pause();
    for _ in 0..3 {
        guest.send_data(port, b"question");
    }
    stream.write_all(b"answer").unwrap();
    guest.driver.device().resume();
    guest.driver.run();
    assert_eq!(guest.driver.interrupts(), 1);
    assert_eq!(std::iter::from_fn(|| guest.driver.used(TXQ)).count(), 3);
    assert_eq!(guest.next().1, b"answer");
}

#[test]
fn the_guests_credit_is_never_exceeded() {
    let mut guest = Guest::started();
    guest.report_ready();
    guest.buf_alloc = 1000;
    let (mut stream, port) = guest.accept(1);
    let sent = pattern(2500);
    stream.write_all(&sent).unwrap();
    let (mut got, ops) = guest.drain();
    assert_eq!((got.len(), ops), (1000, vec![op::CREDIT_REQUEST]));
    guest.fwd_cnt = 600;
    guest.answer(port, op::CREDIT_UPDATE);
    let (more, ops) = guest.drain();
    assert_eq!((more.len(), ops), (600, vec![op::CREDIT_REQUEST]));
    got.extend(more);
    guest.fwd_cnt = 1600;
    guest.answer(port, op::CREDIT_UPDATE);
    got.extend(guest.drain().0);
    assert_eq!(got, sent);
}

#[test]
fn an_impossible_fwd_cnt_gives_no_credit() {
    let mut guest = Guest::started();
    guest.report_ready();
    guest.buf_alloc = 1000;
    let (mut stream, port) = guest.accept(1);
    guest.fwd_cnt = 1;
    guest.answer(port, op::CREDIT_UPDATE);
    stream.write_all(b"x").unwrap();
    assert_eq!(guest.drain(), (vec![], vec![op::CREDIT_REQUEST]));
}

#[test]
fn a_credit_request_is_answered() {
    let (mut guest, _stream, port) = Guest::connected();
    guest.answer(port, op::CREDIT_REQUEST);
    let (header, _) = guest.next();
    assert_eq!(
        (header.op, header.buf_alloc),
        (op::CREDIT_UPDATE, BUFFER_SIZE)
    );
}

/// Sends until the credit is used up. Returns the number of bytes sent.
fn fill(guest: &mut Guest, port: u32) -> usize {
    let (mut sent, mut fwd_cnt) = (0, 0);
    loop {
        while let Some((header, _)) = guest.try_next() {
            fwd_cnt = header.fwd_cnt as usize;
        }
        let credit = BUFFER_SIZE as usize - (sent - fwd_cnt);
        if credit == 0 {
            return sent;
        }
        let chunk = credit.min(16 << 10);
        let bytes = pattern(sent + chunk).split_off(sent);
        guest.send_data(port, &bytes);
        sent += chunk;
    }
}

#[test]
fn a_slow_reader_stops_the_guest_and_loses_no_byte() {
    let (mut guest, mut stream, port) = Guest::connected();
    let sent = fill(&mut guest, port);
    let mut got = Vec::new();
    let mut announced = 0;
    while got.len() < sent {
        match stream.read_to_end(&mut got) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => guest.driver.run(),
            other => panic!("{other:?}"),
        }
        while let Some((header, _)) = guest.try_next() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            announced = header.fwd_cnt as usize;
        }
    }
    assert_eq!(got, pattern(sent));
    assert!(sent - announced < BUFFER_SIZE as usize / 4);
}

#[test]
fn a_guest_that_exceeds_its_credit_gets_rst() {
    let (mut guest, _stream, port) = Guest::connected();
    fill(&mut guest, port);
    // Less than this was forwarded without a CREDIT_UPDATE.
    guest.send_data(port, &pattern(64 << 10));
    assert_eq!(guest.next().0.op, op::RST);
    assert!(guest.driver.device().device().connections().is_empty());
}

#[test]
fn a_length_beyond_the_payload_gets_rst() {
    let (mut guest, _stream, port) = Guest::connected();
    for len in [4, u32::MAX] {
        let (_stream, port) = if len == 4 {
            (None, port)
        } else {
            let (stream, port) = guest.accept(2);
            (Some(stream), port)
        };
        let header = Header {
            dst_port: port,
            op: op::RW,
            len,
            ..guest.base()
        };
        guest.send_bytes(header, b"abc");
        assert_eq!(guest.next().0.op, op::RST);
    }
}

#[test]
fn fifty_megabytes_reach_the_host_intact() {
    let (mut guest, mut stream, port) = Guest::connected();
    let sent = pattern(MUCH);
    let reader = std::thread::spawn(move || {
        stream.set_nonblocking(false).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let (mut at, mut fwd_cnt) = (0, 0);
    while at < MUCH {
        while let Some((header, _)) = guest.try_next() {
            fwd_cnt = header.fwd_cnt as usize;
        }
        let credit = BUFFER_SIZE as usize - (at - fwd_cnt);
        let chunk = credit.min(64 << 10).min(MUCH - at);
        if chunk == 0 {
            guest.driver.wait(-1);
            continue;
        }
        guest.send_data(port, &sent[at..at + chunk]);
        at += chunk;
    }
    // Buffered bytes still arrive after the guest has closed.
    guest.shut_down(port, 3);
    while !guest.driver.device().device().draining.is_empty() {
        guest.driver.wait(-1);
    }
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn fifty_megabytes_reach_the_guest_intact() {
    let (mut guest, mut stream, port) = Guest::connected();
    let sent = pattern(MUCH);
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || {
        stream.set_nonblocking(false).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut got = Vec::with_capacity(MUCH);
    let mut announced = 0;
    loop {
        let Some((header, data)) = guest.try_next() else {
            guest.driver.wait(-1);
            continue;
        };
        got.extend(data);
        guest.fwd_cnt = got.len() as u32;
        if header.op == op::SHUTDOWN && header.flags & SHUTDOWN_SEND != 0 {
            break;
        }
        if got.len() - announced >= GUEST_BUFFER as usize / 2 {
            announced = got.len();
            guest.answer(port, op::CREDIT_UPDATE);
        }
    }
    writer.join().unwrap();
    assert!(got == sent);
}

#[test]
fn two_connections_share_the_queue_fairly() {
    let (mut guest, mut first, first_port) = Guest::connected();
    let (mut second, second_port) = guest.accept(2);
    first.write_all(&pattern(40_000)).unwrap();
    second.write_all(&pattern(40_000)).unwrap();
    let ports: Vec<_> = (0..4).map(|_| guest.next().0.src_port).collect();
    assert!(ports.contains(&first_port) && ports.contains(&second_port));
}
