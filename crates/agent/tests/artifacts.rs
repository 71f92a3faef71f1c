//! Artifacts: the files that come back after the run stage.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{Read as _, Write as _};

use cloude_protocol::agent::{Artifacts, Cause, Event, ExecuteRequest, ExecuteResult};
use common::*;

#[derive(Debug, PartialEq)]
struct Artifact {
    path: String,
    bytes: u64,
    mode: u32,
    content: Vec<u8>,
}

fn wanting(mut request: ExecuteRequest, patterns: &[&str]) -> ExecuteRequest {
    request.artifacts = Some(Artifacts {
        patterns: patterns.iter().map(|text| text.to_string()).collect(),
        max_bytes: 1 << 30,
        max_files: 1000,
    });
    request
}

fn gathered(events: Vec<Event>) -> (ExecuteResult, Vec<Artifact>) {
    let mut artifacts: Vec<Artifact> = Vec::new();
    for event in events {
        match event {
            Event::Artifact { path, bytes, mode } => artifacts.push(Artifact {
                path,
                bytes,
                mode,
                content: vec![],
            }),
            Event::ArtifactData { data } => {
                assert!(data.0.len() <= 256 << 10, "{} bytes", data.0.len());
                artifacts.last_mut().unwrap().content.extend(data.0);
            }
            Event::Finished(result) => return (result, artifacts),
            Event::Started { .. } | Event::Output { .. } => assert!(artifacts.is_empty()),
            _ => {}
        }
    }
    panic!("no result")
}

fn run(request: &ExecuteRequest) -> (ExecuteResult, Vec<Artifact>) {
    gathered(agent().events(request))
}

fn paths(artifacts: &[Artifact]) -> Vec<&str> {
    artifacts
        .iter()
        .map(|artifact| artifact.path.as_str())
        .collect()
}

#[test]
fn matching_files_come_back_in_order_of_their_paths() {
    let script = "mkdir -p out/deep a-b a; for f in b a/z a-b/x out/1 out/deep/2 other; do echo $f > $f; done; \
                  chmod 750 b; : > out/empty; chmod 000 out/1";
    let request = wanting(sh(script), &["b", "a*/?", "out/**"]);

    let (result, artifacts) = run(&request);

    let expected = ["a-b/x", "a/z", "b", "out/1", "out/deep/2", "out/empty"];
    assert_eq!(paths(&artifacts), expected);
    let content = |index: usize| String::from_utf8(artifacts[index].content.clone()).unwrap();
    assert_eq!(content(2), "b\n");
    assert_eq!(content(4), "out/deep/2\n");
    assert_eq!((artifacts[2].mode, artifacts[2].bytes), (0o750, 2));
    assert_eq!((artifacts[3].mode, content(3).as_str()), (0, "out/1\n"));
    assert_eq!(artifacts[5].bytes, 0);
    assert_eq!(result.artifacts_dropped, 0);
}

#[test]
fn they_come_whatever_ended_the_program() {
    let mut killed = wanting(sh("echo x > made; while :; do :; done"), &["*"]);
    killed.run.limits.cpu_time_ms = Some(100);
    let failed = wanting(sh("echo x > made; exit 3"), &["*"]);
    for (request, cause) in [(killed, Cause::CpuTime), (failed, Cause::Exit)] {
        let (result, artifacts) = run(&request);

        assert_eq!(result.run.unwrap().cause, cause);
        assert_eq!(paths(&artifacts), ["made"]);
    }
}

#[test]
fn none_come_if_the_program_did_not_run() {
    let mut broken = wanting(sh("echo never"), &["*"]);
    broken.compile = Some(stage(&["sh", "-c", "echo x > made; exit 1"]));
    let missing = wanting(request(&["no-such-command"]), &["*"]);
    for request in [broken, missing] {
        assert_eq!(run(&request).1, []);
    }
}

#[test]
fn links_and_special_files_are_counted_and_never_opened() {
    // Opening the FIFO for reading would block for ever.
    let script = "mkdir real; echo in > real/file; ln -s /etc/passwd stolen; ln -s real linked; ln -s /etc etc; \
                  mkfifo fifo; mknod zero c 1 5; \
                  python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"";
    let request = wanting(as_root(sh(script)), &["**", "etc/passwd", "linked/file"]);

    let (result, artifacts) = run(&request);

    assert_eq!(paths(&artifacts), ["real/file"]);
    // stolen, linked, etc, fifo, zero, socket
    assert_eq!(result.artifacts_dropped, 6);
}

#[test]
fn background_processes_are_dead_before_files_are_read() {
    let script = "(setsid sh -c 'while :; do echo more >> grows; done' &) ; while [ ! -s grows ]; do :; done";
    let (_, artifacts) = run(&wanting(sh(script), &["grows"]));

    assert_eq!(artifacts[0].bytes, artifacts[0].content.len() as u64);
    assert_eq!(artifacts[0].bytes % 5, 0);
}

#[test]
fn files_beyond_the_number_are_counted() {
    let mut request = wanting(
        sh("for i in 1 2 3 4 5 6 7 8 9; do echo $i > f$i; done"),
        &["f*"],
    );
    request.artifacts.as_mut().unwrap().max_files = 4;

    let (result, artifacts) = run(&request);

    assert_eq!(paths(&artifacts), ["f1", "f2", "f3", "f4"]);
    assert_eq!(result.artifacts_dropped, 5);
}

#[test]
fn files_beyond_the_bytes_are_counted_and_smaller_ones_sent() {
    let script = "head -c 60 /dev/zero > a; head -c 50 /dev/zero > b; head -c 40 /dev/zero > c; head -c 101 /dev/zero > d; \
                  truncate -s 1T e";
    let mut request = wanting(sh(script), &["*"]);
    request.artifacts.as_mut().unwrap().max_bytes = 100;

    let (result, artifacts) = run(&request);

    assert_eq!(paths(&artifacts), ["a", "c"]);
    assert_eq!(result.artifacts_dropped, 3);
}

#[test]
fn names_that_are_not_utf8_are_counted() {
    let script = "touch \"$(printf 'bad\\377')\" good";
    let (result, artifacts) = run(&wanting(sh(script), &["*"]));

    assert_eq!(paths(&artifacts), ["good"]);
    assert_eq!(result.artifacts_dropped, 1);
}

#[test]
fn large_binary_files_arrive_whole_at_a_slow_client() {
    let script = "seq 1 1000000 | gzip -c > first; seq 1 1000000 > second";
    let agent = agent();
    let mut stream = agent.connect();
    let body = serde_json::to_vec(&wanting(sh(script), &["*"])).unwrap();
    stream.write_all(&execute_bytes(&body)).unwrap();
    let mut head = [0; 200];
    stream.read_exact(&mut head).unwrap();
    // The agent must wait for the client, and not collect the files in its memory.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let bytes = [head.to_vec(), rest].concat();

    let (_, artifacts) = gathered(answer(&bytes).events());

    let expected: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(artifacts[1].content.len(), expected.len());
    assert!(artifacts[1].content == expected.as_bytes());
    assert_eq!(artifacts[0].content.len() as u64, artifacts[0].bytes);
    assert_eq!(artifacts[0].content[..2], [0x1f, 0x8b]);
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 16 * 1024, "{kib} KiB");
}

#[test]
fn patterns_out_of_the_work_directory_are_refused() {
    for pattern in ["/etc/passwd", "../*", ""] {
        let request = wanting(sh("echo never"), &[pattern]);
        let answer = agent().post(&serde_json::to_vec(&request).unwrap());
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains("artifacts.patterns"));
    }
}
