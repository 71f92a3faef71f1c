//! `cloude run`: streams, exit codes, and the request that the backend gets.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, StageName, Stream};
use cloude_protocol::api::{
    CompileLimits, CompileReport, Execution, ExecutionEvent, Limits, Status,
};
use cloude_protocol::network::{Denied, DenyReason, NetworkReport};
use common::{FakeBackend, Script, ended, exited, output, result, stage, stderr, stdout};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn output_keeps_its_streams_and_the_program_its_exit_code() {
    let started = ExecutionEvent::Started {
        stage: StageName::Run,
    };
    let accepted = ExecutionEvent::Accepted {
        id: "job-1".to_owned(),
        interactive: None,
    };
    let backend = FakeBackend::new(Script::Events(vec![
        accepted,
        started,
        stdout(b"one\n"),
        stderr(b"two\n"),
        stdout(b"three"),
        result(exited(7)),
    ]));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "one\nthree");
    assert_eq!(text(&output.stderr), "two\n");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn every_byte_value_is_relayed() {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let events = bytes
        .chunks(777)
        .map(stdout)
        .chain([result(exited(0))])
        .collect();
    let backend = FakeBackend::new(Script::Events(events));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, bytes);
}

#[test]
fn exit_codes_follow_the_cause() {
    let table = [
        (exited(0), 0),
        (exited(255), 255),
        (ended(Cause::Signal, None, Some(9)), 137),
        (ended(Cause::Signal, None, Some(11)), 139),
        (ended(Cause::WallTime, None, Some(9)), 124),
        (ended(Cause::CpuTime, None, Some(9)), 124),
        (ended(Cause::Memory, None, Some(9)), 137),
        (ended(Cause::GuestPanic, None, None), 125),
        (ended(Cause::Infrastructure, None, None), 125),
        (ended(Cause::Cancelled, None, None), 130),
    ];
    for (execution, code) in table {
        let cause = execution.cause;
        let backend = FakeBackend::ending(execution);
        let output = backend
            .cloude()
            .args(["run", "-l", "python", "-c", "x"])
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{cause:?}: {}",
            text(&output.stderr)
        );
        assert_eq!(
            output.stderr.is_empty(),
            cause == Cause::Exit,
            "{cause:?}: stderr must be empty for an exit only"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_time_limit_is_noted_with_the_option_that_raises_it() {
    let backend = FakeBackend::ending(ended(Cause::WallTime, None, Some(9)));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stderr),
        "cloude: the program was killed at its time limit, after 2.0 s: raise it with --timeout\n"
    );
}

#[test]
fn an_infrastructure_error_is_printed_with_its_reason() {
    let mut execution = ended(Cause::Infrastructure, None, None);
    execution.status = Status::Error;
    execution.run = None;
    execution.error = Some("the kernel is gone".to_owned());
    let output = FakeBackend::ending(execution)
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(
        text(&output.stderr),
        "cloude: the program could not be run: the kernel is gone\n"
    );
}

#[test]
fn a_compile_error_is_on_stderr_with_its_exit_code() {
    let mut execution = ended(Cause::Exit, Some(1), None);
    execution.run = None;
    execution.compile = Some(CompileReport {
        result: stage(Cause::Exit, Some(1), None),
        stdout: Data::default(),
        stderr: Data::default(),
        shared: false,
    });
    let backend = FakeBackend::new(Script::Events(vec![
        ExecutionEvent::Started {
            stage: StageName::Compile,
        },
        output(StageName::Compile, Stream::Stdout, b"on stdout\n"),
        output(StageName::Compile, Stream::Stderr, b"main.c:1: error\n"),
        result(execution),
    ]));
    let output = backend
        .cloude()
        .args(["run", "-l", "c", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(text(&output.stderr), "on stdout\nmain.c:1: error\n");
}

#[test]
fn dropped_output_is_noted_on_stderr() {
    let dropped = ExecutionEvent::Dropped {
        stage: StageName::Run,
        stream: Stream::Stdout,
        bytes: 12345,
    };
    let backend = FakeBackend::new(Script::Events(vec![
        stdout(b"head"),
        dropped,
        stdout(b"tail"),
        result(exited(0)),
    ]));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "headtail");
    assert!(
        text(&output.stderr).contains("12345 bytes of standard output were dropped here"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn denied_traffic_is_noted_on_stderr() {
    let denied = |address: [u8; 4], times| Denied {
        address: Some(address.into()),
        port: Some(80),
        protocol: "tcp".to_owned(),
        reason: DenyReason::Destination,
        times,
    };
    let execution = Execution {
        network: Some(NetworkReport {
            denied: vec![denied([169, 254, 169, 254], 3), denied([10, 0, 0, 1], 1)],
            denied_others: 2,
        }),
        ..exited(0)
    };
    let backend = FakeBackend::new(Script::Events(vec![result(execution)]));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    let note = "denied 6 packets, to tcp 169.254.169.254:80 and one more destination";
    assert!(
        text(&output.stderr).contains(note),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn every_option_reaches_the_backend() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("hello.py");
    let data = folder.path().join("data.bin");
    std::fs::write(&program, "print(1)").unwrap();
    std::fs::write(&data, [0xff, 0]).unwrap();
    let backend = FakeBackend::ending(exited(0));
    backend
        .cloude()
        .arg("run")
        .arg(&program)
        .args([
            "--timeout",
            "1.5s",
            "--compile-timeout",
            "2m",
            "--memory",
            "1G",
            "--vcpus",
            "2",
            "--network",
            "--user",
            "root",
            "--unconfined",
        ])
        .args(["--output-limit", "1K", "--env", "A=b=c", "--file"])
        .arg(format!("{}:sub/x.bin", data.display()))
        .args(["--", "one", "--two", "three four"])
        .write_stdin("in\nput")
        .assert()
        .success();
    let request = backend.only_execution();
    assert_eq!(
        (request.language.as_str(), request.code.as_str()),
        ("python", "print(1)")
    );
    assert_eq!(request.args, ["one", "--two", "three four"]);
    assert_eq!(request.stdin, Data::from("in\nput"));
    assert_eq!(request.env, [("A".to_owned(), "b=c".to_owned())].into());
    assert_eq!(request.files.len(), 1);
    assert_eq!(
        (request.files[0].path.as_str(), &request.files[0].content),
        ("sub/x.bin", &Data(vec![0xff, 0]))
    );
    assert!(request.network && request.unconfined);
    assert_eq!(request.user.as_deref(), Some("root"));
    let limits = Limits {
        wall_time_ms: Some(1500),
        output_bytes: Some(1024),
        memory_bytes: Some(1024 << 20),
        vcpus: Some(2),
        compile: CompileLimits {
            wall_time_ms: Some(120_000),
            ..CompileLimits::default()
        },
        ..Limits::default()
    };
    assert_eq!(request.limits, limits);
}

#[test]
fn a_dash_reads_the_program_from_standard_input() {
    let backend = FakeBackend::ending(exited(0));
    backend
        .cloude()
        .args(["run", "-l", "python", "-"])
        .write_stdin("print(2)")
        .assert()
        .success();
    let request = backend.only_execution();
    assert_eq!(
        (request.code.as_str(), request.stdin),
        ("print(2)", Data::default())
    );
}

#[test]
fn json_prints_the_whole_result_and_keeps_the_exit_code() {
    let mut execution = exited(4);
    execution.stdout = Data::from("hi\n");
    let backend = FakeBackend::ending(execution.clone());
    let output = backend
        .cloude()
        .args(["run", "--json", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<cloude_protocol::api::Execution>(&output.stdout).unwrap(),
        execution
    );
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_connection_that_ends_early_is_an_infrastructure_error() {
    let backend = FakeBackend::new(Script::Events(vec![stdout(b"half")]));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(text(&output.stdout), "half");
    assert!(
        text(&output.stderr).contains("before the result arrived"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_busy_backend_is_reported_with_its_retry_after() {
    let body = r#"{"error":"64 executions are queued"}"#.to_owned();
    let backend = FakeBackend::new(Script::Answer(429, Some(("retry-after", "3")), body));
    let output = backend
        .cloude()
        .args(["--retry-for", "0", "run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(
        text(&output.stderr),
        "cloude: the backend is busy: 64 executions are queued; try again in 3 s\n"
    );
}

#[test]
fn an_unreachable_backend_is_reported_with_the_way_out() {
    // A port that was just free: nothing listens there.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let output = common::cloude()
        .args([
            "run",
            "-l",
            "python",
            "-c",
            "x",
            "--backend",
            &format!("http://{address}"),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let message = text(&output.stderr);
    assert!(
        message.starts_with(&format!(
            "cloude: cannot connect to the backend at http://{address}"
        )),
        "{message}"
    );
    assert!(
        message.contains("clouded") && message.contains("--backend"),
        "{message}"
    );
}

#[test]
fn an_answer_that_is_not_cloudeds_is_reported_as_such() {
    let backend = FakeBackend::new(Script::Answer(502, None, "<html>gateway</html>".to_owned()));
    let output = backend
        .cloude()
        .args(["run", "-l", "python", "-c", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("not as clouded does"),
        "{}",
        text(&output.stderr)
    );
}
