//! The HTTP server: valid requests, malformed ones, and bounds.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{Read as _, Write as _};

use cloude_protocol::agent::Health;
use common::*;

fn status(bytes: &[u8]) -> (u16, String) {
    let answer = agent().raw(bytes);
    (answer.status, answer.error())
}

#[test]
fn health_is_answered() {
    let answer = agent().get("/health");
    assert_eq!(answer.status, 200);
    let health: Health = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (health.status.as_str(), health.version.as_str()),
        ("ok", env!("CARGO_PKG_VERSION"))
    );
    assert!(health.ready_at_ns > 0);
}

#[test]
fn a_connection_serves_several_requests() {
    let agent = agent();
    let mut stream = agent.connect();
    let head = format!("GET /health HTTP/1.1\r\nAuthorization: bearer {TOKEN}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut buffer = [0; 4096];
    let first = stream.read(&mut buffer).unwrap();
    assert!(buffer[..first].starts_with(b"HTTP/1.1 200 OK\r\n"));
    stream.write_all(head.as_bytes()).unwrap();
    let second = stream.read(&mut buffer).unwrap();
    assert!(buffer[..second].starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn requests_without_the_token_are_refused() {
    let agent = agent();
    let body = serde_json::to_vec(&sh("touch ran")).unwrap();
    let good = String::from_utf8(execute_bytes(&body)).unwrap();
    let wrong = [
        good.replace(TOKEN, "0123456789abcdee"),
        good.replace(TOKEN, "0123456789abcde"),
        good.replace(TOKEN, ""),
        good.replace("Bearer", "Basic"),
        good.replace("Authorization", "X-Other"),
    ];
    for request in wrong {
        let answer = agent.raw(request.as_bytes());
        assert_eq!(answer.status, 401, "{request}");
        assert!(answer.head.contains("WWW-Authenticate: Bearer"));
    }
    assert!(!agent.directory.path().join("work/ran").exists());
    assert_eq!(agent.raw(good.as_bytes()).status, 200);
    assert!(agent.directory.path().join("work/ran").exists());
}

#[test]
fn an_agent_executes_once() {
    let agent = agent();
    assert_eq!(
        agent.execute(&sh("true")).result.run.unwrap().exit_code,
        Some(0)
    );
    let answer = agent.post(&serde_json::to_vec(&sh("true")).unwrap());
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (409, "this VM has run its one execution; use another VM")
    );
    assert_eq!(agent.get("/health").status, 200);
}

#[test]
fn a_refused_request_does_not_use_the_vm_up() {
    let agent = agent();
    let mut no_command = sh("true");
    no_command.run.argv.clear();
    let mut no_time = sh("true");
    no_time.run.wall_time_ms = 0;
    let mut outside = sh("true");
    outside.files = vec![cloude_protocol::agent::File {
        path: "../x".into(),
        content: "".into(),
        mode: None,
    }];
    let mut nul = sh("true");
    nul.env.insert("A".into(), "b\0c".into());
    let mut name = sh("true");
    name.env.insert("A=B".into(), "c".into());
    for (request, expected) in [
        (no_command, "run.argv is empty"),
        (no_time, "run.wall_time_ms is 0"),
        (outside, "contains `..`"),
        (nul, "env.A contains a NUL byte"),
        (name, "env: the variable name"),
    ] {
        let answer = agent.post(&serde_json::to_vec(&request).unwrap());
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(expected), "{}", answer.error());
    }
    for body in ["", "{", "[]", "{\"id\": 1}", "\u{0}"] {
        let answer = agent.post(body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.error().starts_with("invalid request body: "),
            "{}",
            answer.error()
        );
    }
    assert_eq!(
        agent.execute(&sh("true")).result.run.unwrap().exit_code,
        Some(0)
    );
}

#[test]
fn other_paths_and_methods_are_refused() {
    let agent = agent();
    assert_eq!(agent.get("/").status, 404);
    let answer = agent.get("/execute");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("Allow: POST"));
    let head = format!("DELETE /health HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(agent.raw(head.as_bytes()).status, 405);
}

#[test]
fn other_protocols_are_refused() {
    assert_eq!(
        status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n").0,
        400
    );
    assert_eq!(status(b"GET /health HTTP/1.0\r\n\r\n").0, 400);
    assert_eq!(
        status(b"POST /execute HTTP/1.1\r\nContent-Length: x\r\n\r\n").0,
        400
    );
}

#[test]
fn a_head_past_its_bounds_is_refused() {
    let long = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(status(long.as_bytes()).0, 431);
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert_eq!(status(many.as_bytes()).0, 431);
}

#[test]
fn a_body_past_its_bounds_is_refused_unread() {
    let head = format!(
        "POST /execute HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 67108865\r\n\r\n"
    );
    let (code, error) = status(head.as_bytes());
    assert_eq!(code, 413);
    assert!(
        error.contains("67108865") && error.contains("67108864"),
        "{error}"
    );
}

#[test]
fn a_body_of_unknown_length_is_refused() {
    let head = format!(
        "POST /execute HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    assert_eq!(status(head.as_bytes()).0, 411);
}

#[test]
fn silent_clients_do_not_block_others() {
    let agent = agent();
    let silent: Vec<_> = (0..20).map(|_| agent.connect()).collect();
    for mut stream in &silent {
        stream.write_all(b"GET /hea").unwrap();
    }
    assert_eq!(agent.get("/health").status, 200);
    drop(silent);
}
