//! Interactive executions with a terminal.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::{Duration, Instant};

use cloude_protocol::agent::{Cause, Input, TerminalSize};
use common::session::*;
use common::*;

const TERMINAL: &str = r#"
import os
print([os.isatty(stream) for stream in range(3)], os.get_terminal_size(), os.environ["TERM"])
print(os.getpgrp() == os.tcgetpgrp(0) == os.getpid() == os.getsid(0))
with open("/dev/tty", "w") as tty:
    tty.write("to the terminal\n")
print(os.stat(os.ttyname(0)).st_uid == os.getuid(), os.getuid())
status = dict(line.split(":\t") for line in open("/proc/self/status") if ":\t" in line)
print(status["Seccomp"].strip(), status["NoNewPrivs"].strip(), status["CapEff"].strip())
"#;

#[test]
fn a_terminal_is_the_programs_controlling_terminal() {
    let mut session = terminal(python(TERMINAL));

    let result = session.finish();

    let expected = "[True, True, True] os.terminal_size(columns=101, lines=37) xterm-256color\r\n\
                    True\r\nto the terminal\r\nTrue 1000\r\n2 1 0000000000000000\r\n";
    assert_eq!(session.output(), expected);
    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(0)));
    assert_eq!(
        (result.stdout_bytes, result.stderr_bytes),
        (expected.len() as u64, 0)
    );
}

#[test]
fn resizing_a_terminal_signals_the_program() {
    let code = "
import os, signal
signal.signal(signal.SIGWINCH, lambda *_: print(os.get_terminal_size()))
print('ready')
input()
";
    let mut session = terminal(python(code));
    session.wait_for("ready");

    session.sent(&Input {
        resize: Some(TerminalSize {
            columns: 12,
            rows: 3,
        }),
        ..Input::default()
    });

    session.wait_for("os.terminal_size(columns=12, lines=3)");
    session.sent(&data("\r"));
    assert_eq!(session.finish().exit_code, Some(0));
}

#[test]
fn control_c_interrupts_the_program() {
    let code = "
import time
try:
    print('ready')
    while True: time.sleep(0.1)
except KeyboardInterrupt:
    print('interrupted')
";
    let mut session = terminal(python(code));
    session.wait_for("ready");

    session.sent(&data("\x03"));

    assert_eq!(session.finish().exit_code, Some(0));
    assert!(session.output().ends_with("interrupted\r\n"));
}

#[test]
fn the_end_of_input_in_a_terminal_is_its_character() {
    let mut session = terminal(sh("echo ready; cat; echo over; cat; echo again"));
    session.wait_for("ready");
    session.sent(&data("line\n"));
    session.sent(&end());
    session.wait_for("over");

    session.sent(&end());

    assert_eq!(session.finish().exit_code, Some(0));
    assert!(session.output().ends_with("over\r\nagain\r\n"));
}

/// Waits until `sleep ARGUMENT` is in the foreground of its terminal.
fn wait_for_foreground(argument: &str) {
    let deadline = Instant::now() + PATIENCE;
    let in_foreground = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| {
                let line = std::fs::read(process.path().join("cmdline")).ok()?;
                let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
                let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
                // State, ppid, pgrp, session, tty_nr, tpgid (proc(5)).
                (line == format!("sleep\0{argument}\0").as_bytes() && fields[2] == fields[5])
                    .then_some(())
            })
            .count()
    };
    while in_foreground() == 0 {
        assert!(Instant::now() < deadline, "sleep {argument} does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_goes_to_the_foreground_of_a_terminal() {
    let argument = format!("64.{}", std::process::id());
    let script = format!("set -m; sleep {argument}; echo after $?");
    let mut session = terminal(request(&["bash", "-c", &script]));
    wait_for_foreground(&argument);

    session.sent(&signal(libc::SIGTERM));

    assert_eq!(session.finish().exit_code, Some(0));
    assert!(
        session.output().contains("after 143"),
        "{}",
        session.output()
    );
}

#[test]
fn much_output_of_a_terminal_arrives_whole() {
    let mut request = sh("seq 1 100000");
    request.run.output_bytes = 64 << 20;
    let mut session = terminal(request);

    assert_eq!(session.finish().exit_code, Some(0));

    let expected: String = (1..=100_000).map(|n| format!("{n}\r\n")).collect();
    assert!(session.output() == expected);
}

#[test]
fn background_processes_do_not_hold_a_terminal() {
    let mut session = terminal(sh("sleep 65 & (setsid sleep 65 &); echo done; exit 3"));

    let result = session.finish();

    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(3)));
    assert_eq!(session.output(), "done\r\n");
}
