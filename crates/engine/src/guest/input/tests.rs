//! Inputs against an agent that is played by the test.

use cloude_protocol::agent::{ErrorBody, TerminalSize};
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::machine::AgentStream;

/// A sender, and the agent's ends of the connections that it opens.
fn sender() -> (InputSender, mpsc::UnboundedReceiver<DuplexStream>) {
    let (opened, connections) = mpsc::unbounded_channel();
    let opened = Mutex::new(opened);
    let connector = AgentConnector::new(move || {
        let (ours, theirs) = tokio::io::duplex(4 << 20);
        opened.lock().unwrap().send(theirs).unwrap();
        Ok(Box::new(ours) as Box<dyn AgentStream>)
    });
    (InputSender::new(connector, "secret".into()), connections)
}

/// Reads one request: its head, and its input.
async fn read_input(stream: &mut DuplexStream) -> (String, Input) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

async fn accept(stream: &mut DuplexStream) {
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    stream.write_all(answer).await.unwrap();
}

fn data(text: &str) -> Input {
    Input {
        data: Some(text.into()),
        ..Input::default()
    }
}

#[tokio::test]
async fn inputs_share_one_connection_with_the_token() {
    let (mut sender, mut connections) = sender();
    let agent = tokio::spawn(async move {
        let mut stream = connections.recv().await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (head, input) = read_input(&mut stream).await;
            assert!(head.starts_with("POST /input HTTP/1.1"), "{head}");
            assert!(head.contains("authorization: Bearer secret"), "{head}");
            seen.push(input);
            accept(&mut stream).await;
        }
        (seen, connections.try_recv().is_err())
    });

    sender.send(&data("one")).await.unwrap();
    sender.send(&data("two")).await.unwrap();

    let (seen, one_connection) = agent.await.unwrap();
    assert_eq!(seen, [data("one"), data("two")]);
    assert!(one_connection);
}

#[tokio::test]
async fn a_connection_that_the_agent_closed_is_replaced() {
    let (mut sender, mut connections) = sender();
    let agent = tokio::spawn(async move {
        for _ in 0..2 {
            let mut stream = connections.recv().await.unwrap();
            read_input(&mut stream).await;
            accept(&mut stream).await;
        }
    });

    sender.send(&data("one")).await.unwrap();
    tokio::task::yield_now().await;
    sender.send(&data("two")).await.unwrap();

    agent.await.unwrap();
}

#[tokio::test]
async fn large_data_goes_in_pieces_that_the_agent_accepts() {
    let (mut sender, mut connections) = sender();
    let text = "x\u{1}\"".repeat(200_000);
    let size = TerminalSize {
        columns: 1,
        rows: 2,
    };
    let input = Input {
        resize: Some(size),
        end: true,
        signal: Some(2),
        ..data(&text)
    };
    let agent = tokio::spawn(async move {
        let mut stream = connections.recv().await.unwrap();
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|input: &Input| input.end) {
            let (head, input) = read_input(&mut stream).await;
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            assert!(length.unwrap().parse::<usize>().unwrap() <= 1 << 20);
            seen.push(input);
            accept(&mut stream).await;
        }
        seen
    });

    sender.send(&input).await.unwrap();

    let seen = agent.await.unwrap();
    let bytes: Vec<u8> = seen
        .iter()
        .flat_map(|input| input.data.clone().unwrap().0)
        .collect();
    assert!(bytes == text.as_bytes());
    let resized: Vec<bool> = seen.iter().map(|input| input.resize.is_some()).collect();
    assert_eq!(resized, [true, false, false]);
    assert_eq!(seen[0].signal, None);
    assert_eq!(seen[2].signal, Some(2));
}

#[tokio::test]
async fn a_closed_input_is_told_from_other_refusals() {
    for (status, closed) in [("409 Conflict", true), ("400 Bad Request", false)] {
        let (mut sender, mut connections) = sender();
        let agent = tokio::spawn(async move {
            let mut stream = connections.recv().await.unwrap();
            read_input(&mut stream).await;
            let error = ErrorBody {
                error: "why".into(),
            };
            let body = serde_json::to_string(&error).unwrap();
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });

        let error = sender.send(&data("x")).await.unwrap_err();

        agent.await.unwrap();
        assert_eq!(matches!(error, InputError::Closed(_)), closed, "{error:?}");
        assert!(error.to_string().contains("why"));
    }
}

#[tokio::test]
async fn a_send_that_is_dropped_closes_its_connection() {
    let (mut sender, mut connections) = sender();
    let sent = tokio::spawn(async move {
        let input = data("x");
        let never = sender.send(&input);
        tokio::time::timeout(std::time::Duration::from_millis(200), never)
            .await
            .is_err()
    });
    let mut stream = connections.recv().await.unwrap();
    read_input(&mut stream).await;

    assert!(sent.await.unwrap());

    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}
