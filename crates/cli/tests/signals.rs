//! Ctrl-C (SIGINT), and a reader of standard output that closes it early.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{FakeBackend, Script, exited, result, stdout};

fn spawn(backend: &FakeBackend) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin!("cloude"))
        .args([
            "run",
            "-l",
            "python",
            "-c",
            "x",
            "--backend",
            &backend.url(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn ctrl_c_exits_with_130_and_closes_the_connection() {
    let backend = FakeBackend::new(Script::Hang(vec![stdout(b"running\n")]));
    let mut child = spawn(&backend);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "running\n");

    // SAFETY: kill(2) on a child that has not been waited for, so that its id is not reused.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };

    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut message = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    assert_eq!(message, "cloude: cancelled\n");
    let deadline = Instant::now() + Duration::from_secs(300);
    while !*backend.shared.abandoned.lock().unwrap() {
        assert!(
            Instant::now() < deadline,
            "the backend still holds the connection"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_closed_standard_output_exits_with_141_silently() {
    // More than a pipe holds, so that a write fails with EPIPE.
    let events = (0..64)
        .map(|_| stdout(&[b'x'; 65536]))
        .chain([result(exited(0))])
        .collect();
    let backend = FakeBackend::new(Script::Events(events));
    let mut child = spawn(&backend);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let mut message = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    assert_eq!(message, "");
}

#[test]
fn a_reader_that_pauses_does_not_stop_the_connection() {
    // More than pipe and socket buffers hold.
    let count = 1024;
    let events = (0..count)
        .map(|_| stdout(&[b'x'; 65536]))
        .chain([result(exited(0))])
        .collect();
    let backend = FakeBackend::new(Script::Events(events));
    let mut child = spawn(&backend);
    let mut output = child.stdout.take().unwrap();

    let deadline = Instant::now() + Duration::from_secs(300);
    while !*backend.shared.sent.lock().unwrap() {
        assert!(Instant::now() < deadline, "the client stopped reading");
        std::thread::sleep(Duration::from_millis(10));
    }

    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), count * 65536);
    assert!(child.wait().unwrap().success());
}
