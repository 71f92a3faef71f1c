//! Large output: the memory of clouded, and clients that do not read.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cloude_backend::config::Config;
use serde_json::json;
use support::{Backend, capacity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const MIB: usize = 1 << 20;

async fn backend(change: impl FnOnce(&mut Config)) -> Backend {
    cloude_backend::allocator::unmap_large_buffers();
    let state = Arc::new(tempfile::tempdir().unwrap());
    Backend::with(capacity(2, 16), state, change).await
}

/// A field of /proc/self/status in bytes.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.unwrap().trim_start_matches(':').trim();
    kib.trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn program(mib: usize, byte: u8) -> serde_json::Value {
    json!({
        "language": "python",
        "code": format!("fill {mib} {byte}"),
        "limits": {"output_bytes": 64 * MIB}
    })
}

/// Sends a request, and does not read the answer. The receive buffer is small.
async fn unread(backend: &Backend, accept: &str, program: &serde_json::Value) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = backend.url.trim_start_matches("http://").parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let body = program.to_string();
    let head = format!(
        "POST /v1/executions HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn metric(backend: &Backend, name: &str) -> u64 {
    let text = backend.get("/metrics").await.body;
    let text = String::from_utf8(text.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

async fn until(backend: &Backend, name: &str, holds: impl Fn(u64) -> bool) {
    while !holds(metric(backend, name).await) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const PINNED: &str = "cloude_pinned_output_bytes";
const LATE: &str = "cloude_rejected_total{reason=\"write_time\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_characters_cost_less_than_4_times_their_bytes() {
    let backend = backend(|_| {}).await;
    let before = memory("VmRSS");
    let raw = 2 * 2 * 32 * MIB;

    let program = program(32, 1);
    let answers = futures_util::future::join(
        unread(&backend, "*/*", &program),
        unread(&backend, "*/*", &program),
    );
    let (mut first, mut second) = answers.await;
    // Reads without keeping: this process is also the client.
    let drain = async |stream: &mut TcpStream| {
        let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
        while !buffer.ends_with(b"0\r\n\r\n") {
            let read = stream.read(&mut buffer[..]).await.unwrap();
            total += read;
            if read == 0 || buffer[..read].ends_with(b"0\r\n\r\n") {
                break;
            }
        }
        total
    };
    let (first, second) = futures_util::future::join(drain(&mut first), drain(&mut second)).await;
    backend.service.drain();
    backend.service.finish(Duration::from_secs(60)).await;

    let grown = memory("VmHWM") - before;
    println!(
        "{} MiB of output: {} MiB of memory, {} MiB sent",
        raw / MIB,
        grown / MIB,
        (first + second) / MIB
    );
    assert!(
        first + second < 3 * raw / 2,
        "{} bytes sent",
        first + second
    );
    assert!(grown < 4 * raw, "{} MiB", grown / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_an_unread_response_is_free_after_the_time_out() {
    for accept in ["*/*", "application/x-ndjson"] {
        let backend = backend(|config| {
            config.limits.write_timeout_ms = 500;
            config.store.cache_bytes = 1 << 20;
        })
        .await;
        let before = memory("VmRSS");
        let client = unread(&backend, accept, &program(32, b'x')).await;
        until(&backend, LATE, |count| count == 1).await;
        until(&backend, PINNED, |bytes| bytes == 0).await;
        backend.alive(0).await;
        backend.service.drain();
        backend.service.finish(Duration::from_secs(60)).await;
        let after = memory("VmRSS");
        println!("{accept}: {} MiB, then {} MiB", before / MIB, after / MIB);
        assert!(after < before + 16 * MIB, "{accept}: {} MiB", after / MIB);
        drop(client);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_output_is_bounded_in_bytes() {
    let backend = backend(|config| config.limits.result_bytes_in_flight = 40 * MIB).await;
    let mut clients = Vec::new();
    for accept in ["*/*", "application/x-ndjson", "*/*", "application/x-ndjson"] {
        clients.push(unread(&backend, accept, &program(8, b'x')).await);
    }
    let cut = "cloude_rejected_total{reason=\"result_memory\"}";
    until(&backend, cut, |count| count == 2).await;
    until(&backend, "cloude_vms ", |count| count == 0).await;
    let pinned = metric(&backend, PINNED).await as usize;
    assert!((32 * MIB..=40 * MIB).contains(&pinned), "{pinned}");
    let mut closed = 0;
    for mut client in clients {
        let mut rest = Vec::new();
        // An unread client that was closed gets a reset; another one gets all of its response.
        let read = tokio::time::timeout(Duration::from_secs(2), client.read_to_end(&mut rest));
        closed += usize::from(matches!(read.await, Ok(Err(_))));
    }
    assert_eq!(closed, 2);
}

#[tokio::test]
async fn large_output_is_the_same_in_all_responses() {
    for (byte, base64) in [(b'x', false), (b'"', false), (1, true), (0xff, true)] {
        let backend = backend(|_| {}).await;
        let answer = backend.post("/v1/executions", program(1, byte)).await;
        let execution: cloude_protocol::api::Execution =
            serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.json()["stdout"].is_object(), base64, "{byte}");
        assert!(execution.stdout.0 == vec![byte; MIB], "{byte}");
        assert!(execution.stderr.0 == vec![byte; MIB], "{byte}");

        let again = backend
            .get(&format!("/v1/executions/{}", execution.id))
            .await;
        assert!(again.json() == answer.json());
        let status = backend.get(&format!("/status/{}", execution.id)).await;
        let text = String::from_utf8_lossy(&[byte; MIB]).into_owned();
        assert!(status.json()["stdout"] == text.as_str(), "{byte}");
        assert_eq!(status.json()["exit_code"], 0);
    }
}
