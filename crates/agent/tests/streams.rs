//! Standard input, output and error: complete, in order, within the output limit.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, Event, StageName, Stream};
use common::*;

#[test]
fn a_large_input_is_echoed_whole() {
    let mut request = request(&["cat"]);
    let content: Vec<u8> = (0..500_000u32).flat_map(|n| n.to_le_bytes()).collect();
    request.stdin = Data(content.clone());
    request.run.output_bytes = 64 << 20;
    let response = agent().execute(&request);
    assert_eq!(response.run.stdout.0.len(), content.len());
    assert!(response.run.stdout.0 == content);
}

#[test]
fn unread_input_does_not_hold_the_stage() {
    let mut request = sh("echo fine");
    request.stdin = Data(vec![b'x'; 10 << 20]);
    let response = agent().execute(&request);
    assert_eq!(response.run.stdout.to_text(), "fine\n");
    assert_eq!(response.result.run.unwrap().exit_code, Some(0));
}

#[test]
fn a_program_that_closes_its_input_continues() {
    let mut request = sh("exec <&-; sleep 0.1; echo fine");
    request.stdin = Data(vec![b'x'; 10 << 20]);
    assert_eq!(agent().execute(&request).run.stdout.to_text(), "fine\n");
}

#[test]
fn empty_input_is_at_its_end_at_once() {
    assert_eq!(
        agent().execute(&sh("cat; echo end")).run.stdout.to_text(),
        "end\n"
    );
}

#[test]
fn the_two_streams_stay_separate() {
    let response = agent().execute(&sh("echo out; echo err >&2; echo out"));
    assert_eq!(response.run.stdout.to_text(), "out\nout\n");
    assert_eq!(response.run.stderr.to_text(), "err\n");
}

#[test]
fn dev_stdout_opens_for_a_user_that_is_not_root() {
    let mut request = sh("cat /dev/stdin > /dev/stdout; echo err > /dev/stderr");
    request.stdin = "in\n".into();

    let response = agent_for("nobody").execute(&request);

    assert_eq!(response.run.stdout.to_text(), "in\n");
    assert_eq!(response.run.stderr.to_text(), "err\n");
}

#[test]
fn output_is_sent_while_the_program_runs() {
    // The program waits for the test, which waits for the program's first line.
    let agent = agent();
    let go = agent.directory.path().join("work/go");
    let request = sh("echo first; while [ ! -e go ]; do sleep 0.01; done; echo second");
    let mut stream = agent.connect();
    let body = serde_json::to_vec(&request).unwrap();
    stream.write_all(&execute_bytes(&body)).unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first") {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0);
        seen.extend_from_slice(&buffer[..length]);
    }
    std::fs::write(go, "").unwrap();
    stream.read_to_end(&mut seen).unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(
        text.contains("second") && text.ends_with("0\r\n\r\n"),
        "{text}"
    );
}

#[test]
fn events_come_in_order() {
    let mut request = sh("printf run");
    request.compile = Some(stage(&["printf", "compile"]));
    let events = agent().events(&request);
    let output = |stage, text: &str| Event::Output {
        stage,
        stream: Stream::Stdout,
        data: text.into(),
    };
    assert_eq!(
        events[0],
        Event::Started {
            stage: StageName::Compile
        }
    );
    assert_eq!(events[1], output(StageName::Compile, "compile"));
    assert_eq!(
        events[2],
        Event::Started {
            stage: StageName::Run
        }
    );
    assert_eq!(events[3], output(StageName::Run, "run"));
    assert!(matches!(&events[4], Event::Finished(result) if result.run.is_some()));
    assert_eq!(events.len(), 5);
}

#[test]
fn past_the_limit_head_and_tail_are_kept() {
    let mut request = sh("seq 1 300000; echo short >&2");
    request.run.output_bytes = 1000;
    let events = agent().events(&request);
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let kept = streamed(&events, StageName::Run, Stream::Stdout);
    assert_eq!(kept[..500], expected.as_bytes()[..500]);
    assert_eq!(kept[500..], expected.as_bytes()[expected.len() - 500..]);
    let dropped = Event::Dropped {
        stage: StageName::Run,
        stream: Stream::Stdout,
        bytes: expected.len() as u64 - 1000,
    };
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::Dropped { .. }))
            .collect::<Vec<_>>(),
        [&dropped]
    );
    let Some(Event::Finished(result)) = events.last() else {
        panic!("{events:?}")
    };
    let run = result.run.as_ref().unwrap();
    assert_eq!((run.cause, run.exit_code), (Cause::Exit, Some(0)));
    assert_eq!(
        (run.stdout_bytes, run.stdout_dropped),
        (expected.len() as u64, expected.len() as u64 - 1000)
    );
    assert_eq!((run.stderr_bytes, run.stderr_dropped), (6, 0));
}

#[test]
fn many_megabytes_arrive_whole() {
    let mut request = sh("seq 1 2000000");
    request.run.output_bytes = 200 << 20;
    let events = agent().events(&request);
    let expected: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    let kept = streamed(&events, StageName::Run, Stream::Stdout);
    assert_eq!(kept.len(), expected.len());
    assert!(kept == expected.as_bytes());
}

#[test]
fn a_slow_reader_slows_the_program_down() {
    let agent = agent();
    let mut request = sh("head -c 40000000 /dev/zero | tr '\\0' a");
    request.run.output_bytes = 1 << 40;
    let mut stream = agent.connect();
    let body = serde_json::to_vec(&request).unwrap();
    stream.write_all(&execute_bytes(&body)).unwrap();
    // Reads nothing until all buffers on the way are full.
    std::thread::sleep(Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 32 * 1024, "{kib} KiB");
    let answer = read_answer(&mut stream);
    assert_eq!(
        streamed(&answer.events(), StageName::Run, Stream::Stdout).len(),
        40_000_000
    );
}

#[test]
fn the_time_limit_applies_while_the_client_does_not_read() {
    let agent = agent();
    let mut request = sh("yes");
    request.run.output_bytes = 1 << 40;
    request.run.wall_time_ms = 300;
    let mut stream = agent.connect();
    let body = serde_json::to_vec(&request).unwrap();
    stream.write_all(&execute_bytes(&body)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let answer = read_answer(&mut stream);
    let events = answer.events();
    let Some(Event::Finished(result)) = events.last() else {
        panic!()
    };
    assert_eq!(result.run.as_ref().unwrap().cause, Cause::WallTime);
}

#[test]
fn bytes_that_are_not_utf8_are_relayed() {
    let mut request = sh("printf '\\377\\000\\376'");
    request.run.output_bytes = 100;
    assert_eq!(
        agent().execute(&request).run.stdout,
        Data(vec![0xff, 0, 0xfe])
    );
}

#[test]
fn a_character_written_in_two_pieces_is_one_chunk() {
    let events = agent().events(&sh("printf 'a\\342\\202'; sleep 0.2; printf '\\254b'"));
    for event in &events {
        if let Event::Output { data, .. } = event {
            assert!(std::str::from_utf8(&data.0).is_ok(), "{event:?}");
        }
    }
    assert_eq!(
        streamed(&events, StageName::Run, Stream::Stdout),
        "a€b".as_bytes()
    );
}
