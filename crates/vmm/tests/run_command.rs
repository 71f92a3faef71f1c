//! `cloude-vmm run`, with a guest that needs no Linux.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};

use common::Code;

#[test]
fn the_guests_end_is_the_commands_while_nobody_types() {
    let kernel = Code::new().print("up\n").power_off().pvh();
    let path = format!("/proc/{}/fd/{}", std::process::id(), kernel.as_raw_fd());
    let mut child = Command::new(env!("CARGO_BIN_EXE_cloude-vmm"))
        .args(["run", "--console", "--memory", "32", "--kernel", &path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A terminal at which nobody presses a key: open to the end, and it gives nothing.
    let mut keyboard = child.stdin.take().unwrap();

    let mut console = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut console).unwrap();
    let status = child.wait().unwrap();

    assert_eq!((status.code(), console.as_str()), (Some(0), "up\n"));
    assert!(keyboard.write_all(b"x").is_err(), "its reader is gone");
}

#[test]
fn a_guest_that_halted_for_good_is_ended_by_a_signal() {
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
