//! Interactive executions: `POST /input`, terminals, signals.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cloude_protocol::agent::{
    Cause, Event, ExecuteRequest, File, Input, Interactive, StageName, StageResult, Stream,
    TerminalSize,
};
use common::*;

/// A running execution, and what it has sent so far.
struct Session {
    agent: Agent,
    stream: UnixStream,
    bytes: Vec<u8>,
}

fn pipes(mut request: ExecuteRequest) -> Session {
    request.interactive = Some(Interactive::default());
    session(request)
}

fn terminal(mut request: ExecuteRequest) -> Session {
    let terminal = Some(TerminalSize {
        columns: 101,
        rows: 37,
    });
    request.interactive = Some(Interactive { terminal });
    session(request)
}

fn session(request: ExecuteRequest) -> Session {
    let agent = agent();
    let mut stream = agent.connect();
    let body = serde_json::to_vec(&request).unwrap();
    stream.write_all(&execute_bytes(&body)).unwrap();
    let mut session = Session {
        agent,
        stream,
        bytes: Vec::new(),
    };
    while !session.events().iter().any(|event| {
        matches!(
            event,
            Event::Started {
                stage: StageName::Run
            }
        )
    }) {
        session.read();
    }
    session
}

fn python(code: &str) -> ExecuteRequest {
    let mut request = request(&["/usr/bin/python3", "-I", "-u", "main.py"]);
    request.files.push(File {
        path: "main.py".into(),
        content: code.into(),
        mode: None,
    });
    request
}

fn data(text: &str) -> Input {
    Input {
        data: Some(text.into()),
        ..Input::default()
    }
}

fn end() -> Input {
    Input {
        end: true,
        ..Input::default()
    }
}

fn signal(signal: i32) -> Input {
    Input {
        signal: Some(signal),
        ..Input::default()
    }
}

fn post_input(stream: &mut UnixStream, input: &Input) -> Answer {
    let body = serde_json::to_vec(input).unwrap();
    let head = format!(
        "POST /input HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    read_answer(stream)
}

impl Session {
    fn read(&mut self) {
        let mut buffer = [0; 65536];
        let length = self.stream.read(&mut buffer).unwrap();
        assert!(
            length > 0,
            "ended: {}",
            String::from_utf8_lossy(&self.bytes)
        );
        self.bytes.extend_from_slice(&buffer[..length]);
    }

    /// The events that are complete.
    fn events(&self) -> Vec<Event> {
        let lines = self.bytes.split_inclusive(|byte| *byte == b'\n');
        lines
            .filter(|line| line.starts_with(b"{\"event\"") && line.ends_with(b"\n"))
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn output(&self) -> String {
        let output = streamed(&self.events(), StageName::Run, Stream::Stdout);
        String::from_utf8(output).unwrap()
    }

    fn wait_for(&mut self, text: &str) {
        while !self.output().contains(text) {
            self.read();
        }
    }

    fn send(&self, input: &Input) -> Answer {
        post_input(&mut self.agent.connect(), input)
    }

    fn sent(&self, input: &Input) {
        let answer = self.send(input);
        assert_eq!(
            answer.status,
            204,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
    }

    fn finish(&mut self) -> StageResult {
        loop {
            if let Some(Event::Finished(result)) = self.events().pop() {
                return result.run.unwrap();
            }
            self.read();
        }
    }
}

#[test]
fn standard_input_stays_open_until_its_end() {
    let mut request = request(&["cat"]);
    request.stdin = "first\n".into();
    let mut session = pipes(request);
    session.wait_for("first\n");

    session.sent(&data("second\n"));
    session.wait_for("second\n");
    session.sent(&Input {
        end: true,
        ..data("third\n")
    });

    assert_eq!(session.finish().exit_code, Some(0));
    assert_eq!(session.output(), "first\nsecond\nthird\n");
    let late = session.send(&data("late"));
    assert_eq!(late.status, 409, "{}", late.error());
}

#[test]
fn input_after_its_end_is_refused() {
    let mut session = pipes(sh("cat; echo over; while [ ! -e go ]; do sleep 0.01; done"));
    session.sent(&end());
    session.wait_for("over");

    let answer = session.send(&data("more"));

    assert_eq!(
        (answer.status, answer.error().as_str()),
        (409, "standard input is closed")
    );
    std::fs::write(session.agent.directory.path().join("work/go"), "").unwrap();
    session.finish();
}

#[test]
fn a_program_that_closed_its_input_refuses_more() {
    let mut session = pipes(sh(
        "exec <&-; echo closed; while [ ! -e go ]; do sleep 0.01; done",
    ));
    session.wait_for("closed");

    // The stage's init may still have it open for a moment.
    let deadline = Instant::now() + PATIENCE;
    while session.send(&data("more")).status != 409 {
        assert!(Instant::now() < deadline, "input is still accepted");
    }

    std::fs::write(session.agent.directory.path().join("work/go"), "").unwrap();
    assert_eq!(session.finish().exit_code, Some(0));
}

#[test]
fn input_waits_for_the_requests_stdin() {
    let mut request = sh("while [ ! -e go ]; do sleep 0.01; done; cat");
    request.stdin = "a".repeat(500_000).into();
    let mut session = pipes(request);
    let mut stream = session.agent.connect();
    let input = std::thread::spawn(move || {
        post_input(
            &mut stream,
            &Input {
                end: true,
                ..data("b")
            },
        )
    });
    // The input is at the agent before the program reads.
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(session.agent.directory.path().join("work/go"), "").unwrap();

    assert_eq!(session.finish().exit_code, Some(0));

    assert_eq!(session.output(), "a".repeat(500_000) + "b");
    assert_eq!(input.join().unwrap().status, 204);
}

#[test]
fn inputs_of_two_connections_do_not_mix() {
    let mut session = pipes(sh("while [ ! -e go ]; do sleep 0.01; done; head -c 600000"));
    let inputs = ["a", "b"].map(|letter| {
        let mut stream = session.agent.connect();
        let input = data(&letter.repeat(300_000));
        std::thread::spawn(move || post_input(&mut stream, &input).status)
    });
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(session.agent.directory.path().join("work/go"), "").unwrap();

    session.finish();

    assert_eq!(inputs.map(|input| input.join().unwrap()), [204, 204]);
    let output = session.output();
    let changes = output
        .as_bytes()
        .windows(2)
        .filter(|two| two[0] != two[1])
        .count();
    assert_eq!((output.len(), changes), (600_000, 1));
}

#[test]
fn a_signal_overtakes_input_that_the_program_does_not_read() {
    let script = "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.01; done";
    let mut session = pipes(sh(script));
    session.wait_for("ready");
    let mut stream = session.agent.connect();
    let blocked =
        std::thread::spawn(move || post_input(&mut stream, &data(&"x".repeat(500_000))).status);
    std::thread::sleep(Duration::from_millis(200));

    session.sent(&signal(libc::SIGUSR1));

    let result = session.finish();
    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(7)));
    assert_eq!(blocked.join().unwrap(), 409);
}

#[test]
fn a_client_that_leaves_while_it_waits_frees_the_input() {
    let mut session = pipes(sh(
        "echo ready; while [ ! -e go ]; do sleep 0.01; done; tail -c 3",
    ));
    session.wait_for("ready");
    let mut stream = session.agent.connect();
    let body = serde_json::to_vec(&data(&"x".repeat(500_000))).unwrap();
    let head = format!(
        "POST /input HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    drop(stream);
    let mut stream = session.agent.connect();
    let next = std::thread::spawn(move || {
        post_input(
            &mut stream,
            &Input {
                end: true,
                ..data("yz")
            },
        )
        .status
    });

    std::fs::write(session.agent.directory.path().join("work/go"), "").unwrap();
    session.finish();

    assert_eq!(next.join().unwrap(), 204);
    assert!(session.output().ends_with("xyz"), "{}", session.output());
}

#[test]
fn a_signal_reaches_the_whole_process_group() {
    let script = "(trap 'echo child' TERM; while :; do sleep 0.01; done) & echo ready; wait";
    let mut session = pipes(sh(script));
    session.wait_for("ready");

    session.sent(&signal(libc::SIGTERM));

    let result = session.finish();
    assert_eq!(
        (result.cause, result.signal),
        (Cause::Signal, Some(libc::SIGTERM))
    );
}

#[test]
fn children_in_the_group_get_the_signal() {
    let code = "
import os, signal, time
def handler(name):
    return lambda *_: os.write(1, name)
child = os.fork()
signal.signal(signal.SIGUSR1, handler(b'child ' if child == 0 else b'parent '))
if child == 0:
    os.write(1, b'ready ')
while True: time.sleep(0.1)
";
    let mut session = pipes(python(code));
    session.wait_for("ready");

    session.sent(&signal(libc::SIGUSR1));

    session.wait_for("child");
    session.wait_for("parent");
}

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

#[test]
fn inputs_that_cannot_be_applied_are_explained() {
    let mut session = pipes(sh("read line"));
    let size = |columns, rows| Input {
        resize: Some(TerminalSize { columns, rows }),
        ..Input::default()
    };
    for (input, message) in [
        (size(80, 25), "has no terminal"),
        (size(0, 25), "give 1 to 1000"),
        (signal(65), "give 1 to 64"),
        (signal(0), "give 1 to 64"),
    ] {
        let answer = session.send(&input);
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(message), "{}", answer.error());
    }
    let unknown =
        b"POST /input HTTP/1.1\r\nAuthorization: Bearer wrong\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(session.agent.raw(unknown).status, 401);
    session.sent(&end());
    session.finish();
}

#[test]
fn an_ordinary_execution_takes_no_input() {
    let mut session = session(sh("echo ready; while [ ! -e go ]; do sleep 0.01; done"));
    session.wait_for("ready");

    let answer = session.send(&data("x"));

    assert_eq!(answer.status, 409);
    std::fs::write(session.agent.directory.path().join("work/go"), "").unwrap();
    assert_eq!(session.finish().exit_code, Some(0));
}

#[test]
fn one_connection_takes_many_inputs() {
    let mut session = pipes(request(&["cat"]));
    let mut stream = session.agent.connect();
    for word in ["one ", "two "] {
        let body = serde_json::to_vec(&data(word)).unwrap();
        let head = format!(
            "POST /input HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .unwrap();
        let mut answer = [0; 27];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204 No Content\r\n\r\n");
    }
    session.wait_for("one two ");
    session.sent(&end());
    session.finish();
}
