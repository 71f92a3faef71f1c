//! `cloude-vmm run` with hand-made guests.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};

use common::Code;

#[test]
fn the_command_ends_with_the_guest_without_input() {
    let kernel = Code::new().print("up\n").power_off().pvh();
    let path = format!("/proc/{}/fd/{}", std::process::id(), kernel.as_raw_fd());
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloude-vmm"))
        .args(["run", "--console", "--memory", "32", "--kernel", &path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Standard input stays open and empty, like a terminal without key presses.
    let mut keyboard = child.stdin.take().unwrap();

    let mut console = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut console).unwrap();
    let status = child.wait().unwrap();

    assert_eq!((status.code(), console.as_str()), (Some(0), "up\n"));
    assert!(keyboard.write_all(b"x").is_err(), "its reader is gone");
}

#[test]
fn a_signal_ends_a_halted_guest() {
    let kernel = Code::new().print("down\n").halt().pvh();
    let path = format!("/proc/{}/fd/{}", std::process::id(), kernel.as_raw_fd());
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloude-vmm"))
        .args(["run", "--memory", "32", "--kernel", &path])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(130));
}
