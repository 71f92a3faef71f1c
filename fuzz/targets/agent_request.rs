//! The agent's HTTP server: heads and bodies of requests on one connection, and the JSON of `POST /execute`.
#![no_main]

use std::time::Duration;

use cloude_agent::execute::check;
use cloude_agent::http::connection::Connection;
use cloude_agent::http::request::{MAX_HEAD_BYTES, Request, read_body};
use cloude_agent::identity;
use cloude_fuzz::bounded;
use cloude_protocol::agent::{ExecuteRequest, WarmRequest};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};

/// Bodies up to this length are read.
const MAX_BODY: u64 = 1 << 16;

fn body(bytes: &[u8]) {
    let _ = serde_json::from_slice::<WarmRequest>(bytes);
    let Ok(request) = serde_json::from_slice::<ExecuteRequest>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&request).unwrap();
    assert_eq!(
        serde_json::from_slice::<ExecuteRequest>(&written).unwrap(),
        request
    );
    if let Some(identity) = &request.identity {
        let _ = identity::check(identity);
    }
    if check(&request).is_ok() {
        let escapes =
            |path: &str| path.starts_with('/') || path.split('/').any(|part| part == "..");
        assert!(request.files.iter().all(|file| !escapes(&file.path)));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (client, server) = pair.unwrap();
    let sent = rustix::net::send(&client, bytes, SendFlags::DONTWAIT).unwrap_or(0);
    rustix::net::shutdown(&client, Shutdown::Write).unwrap();
    bounded(4 << 20, || {
        let mut connection = Connection::new(server);
        while let Ok(request) = Request::read(&mut connection, Duration::from_secs(1)) {
            assert!(connection.buffer.len() <= MAX_HEAD_BYTES);
            assert!(!request.path.contains('?'));
            match request.content_length {
                Some(length) if length <= MAX_BODY => {
                    match read_body(&mut connection, length as usize) {
                        Ok(bytes) => {
                            assert_eq!(bytes.len() as u64, length);
                            body(&bytes);
                        }
                        Err(_) => break,
                    }
                }
                _ => break,
            }
        }
    });
    // The body alone, without a head.
    bounded(4 << 20, || body(&bytes[..sent]));
});
