//! Interactive executions with pipes: `POST /input`, signals.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use cloude_protocol::agent::{Cause, Input, TerminalSize};
use common::session::*;
use common::*;

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
