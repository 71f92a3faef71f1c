//! A fork may send no other event before it has acknowledged its identity.

use cloude_protocol::agent::{ExecuteResult, Identity, Stage, StageName, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

fn request(fork: bool) -> ExecuteRequest {
    let identity = fork.then(|| Identity {
        entropy: "00".repeat(32),
        wall_clock_ns: 1,
        hostname: "vm".into(),
        machine_id: "1".repeat(32),
        boot_id: "11111111-1111-1111-1111-111111111111".into(),
        token: "2".repeat(64),
        network: None,
    });
    ExecuteRequest {
        id: "id".into(),
        run: Stage {
            argv: vec!["true".into()],
            wall_time_ms: 1000,
            output_bytes: 1000,
            ..Stage::default()
        },
        identity,
        ..ExecuteRequest::default()
    }
}

fn lines(events: &[Event]) -> String {
    let line = |event| serde_json::to_string(event).unwrap() + "\n";
    events.iter().map(line).collect()
}

fn output() -> Event {
    Event::Output {
        stage: StageName::Run,
        stream: Stream::Stdout,
        data: "secret".into(),
    }
}

fn finished() -> Event {
    Event::Finished(ExecuteResult::default())
}

/// Reads a request's head and whole body, and gives its first line.
async fn read_request(stream: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await.unwrap());
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    head.lines().next().unwrap().to_owned()
}

/// Plays an agent that answers with `body` and hangs up. What came through, and how it ended.
async fn exchange(fork: bool, status: &str, body: String) -> (usize, Result<(), AgentError>) {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let status = status.to_owned();
    let agent = tokio::spawn(async move {
        read_request(&mut theirs).await;
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{body}");
        let _ = theirs.write_all(answer.as_bytes()).await;
    });
    let mut through = 0;
    let result = execute(Box::new(ours), "t", &request(fork), |_| through += 1).await;
    agent.await.unwrap();
    (through, result.map(drop))
}

#[tokio::test]
async fn an_acknowledged_fork_is_heard() {
    let body = lines(&[Event::Identity, output(), finished()]);
    let (through, result) = exchange(true, "200 OK", body).await;
    result.unwrap();
    assert_eq!(through, 3);
}

#[tokio::test]
async fn another_first_event_is_refused_and_not_passed_on() {
    for first in [
        output(),
        finished(),
        Event::Started {
            stage: StageName::Run,
        },
    ] {
        let body = lines(&[first.clone(), Event::Identity, finished()]);
        let (through, result) = exchange(true, "200 OK", body).await;
        assert!(
            matches!(result, Err(AgentError::Identity)),
            "{first:?}: {result:?}"
        );
        assert_eq!(through, 0, "{first:?}");
    }
}

#[tokio::test]
async fn no_event_passes_if_the_connection_closes_first() {
    let (through, result) = exchange(true, "200 OK", String::new()).await;
    assert!(matches!(result, Err(AgentError::Incomplete)), "{result:?}");
    assert_eq!(through, 0);

    // In the middle of its line.
    let half = "{\"event\":\"iden".to_owned();
    let (through, result) = exchange(true, "200 OK", half).await;
    assert!(result.is_err());
    assert_eq!(through, 0);
}

#[tokio::test]
async fn a_refused_identity_is_an_error_with_its_reason() {
    let body = "{\"error\":\"no entropy\"}".to_owned();
    let (through, result) = exchange(true, "500 Internal Server Error", body).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no entropy"), "{error}");
    assert_eq!(through, 0);
}

#[tokio::test]
async fn an_unrequested_or_second_acknowledgement_is_refused() {
    let (_, result) = exchange(false, "200 OK", lines(&[Event::Identity, finished()])).await;
    assert!(matches!(result, Err(AgentError::Identity)), "{result:?}");

    let twice = lines(&[Event::Identity, Event::Identity, finished()]);
    let (_, result) = exchange(true, "200 OK", twice).await;
    assert!(matches!(result, Err(AgentError::Identity)), "{result:?}");
}

#[tokio::test]
async fn a_booted_vm_needs_no_acknowledgement() {
    let (through, result) = exchange(false, "200 OK", lines(&[output(), finished()])).await;
    result.unwrap();
    assert_eq!(through, 2);
}

#[tokio::test]
async fn warming_leaves_the_connection_open_for_the_next_request() {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let agent = tokio::spawn(async move {
        assert_eq!(read_request(&mut theirs).await, "POST /warm HTTP/1.1");
        let body = "{\"runner\":true}";
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        theirs.write_all(answer.as_bytes()).await.unwrap();
        // Open, until whoever holds it lets go.
        let mut byte = [0];
        let early =
            tokio::time::timeout(std::time::Duration::from_millis(50), theirs.read(&mut byte));
        assert!(early.await.is_err(), "it was closed while it was held");
        theirs
    });
    let warmed = warm(Box::new(ours), "t", &WarmRequest::default()).await;
    let (response, held) = warmed.unwrap();
    assert!(response.runner);
    let mut theirs = agent.await.unwrap();
    drop(held);
    assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
}
