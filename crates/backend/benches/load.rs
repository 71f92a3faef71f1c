//! The price of clouded's HTTP and store path: requests whose VM is a task that answers at once.
//!
//! The server is a process of its own, this executable with the argument `serve`, so that its memory and its processor time
//! are those of the server and of the fake VMs alone. The clients share the machine's processors with it.

#![allow(clippy::unwrap_used)] // A benchmark fails by panicking.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloude_backend::scheduler::Capacity;
use cloude_engine::languages::Languages;
use cloude_engine::{Launcher, MachineSpec, guest};
use cloude_protocol::agent::ExecuteRequest;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[path = "../tests/support/mod.rs"]
mod support;

use support::Backend;
use support::fake_vm::{FakeLauncher, World};

/// Requests of a latency row, one after the other.
const SEQUENTIAL: usize = 5_000;
/// Requests of a throughput row.
const CONCURRENT: usize = 40_000;
/// Connections of a throughput row, each with its next request at once.
const CONNECTIONS: usize = 64;
/// Streams that are open at the same time.
const STREAMS: usize = 200;
/// The limits of output in MiB, by default and the largest. A guest sends no more of each stream than that, however much
/// its program prints.
const OUTPUT_MIB: [u64; 2] = [1, 64];

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::args().any(|argument| argument == "serve") {
        runtime.block_on(serve());
    } else {
        runtime.block_on(measure());
    }
}

/// A server until its standard input ends. Prints its URL.
async fn serve() {
    let capacity = Capacity {
        vms: 2 * STREAMS,
        vcpus: 2 * STREAMS,
        memory_mib: 1 << 20,
        queue: 4096,
        queue_bytes: 1 << 30,
    };
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity, state, |_| {}).await;
    println!("{}", backend.url);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = ended.await;
}

/// A server in a process of its own, which ends with this value.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut url).unwrap();
        let address = url.trim().trim_start_matches("http://").to_owned();
        Server { process, address }
    }

    async fn connect(&self) -> Connection {
        let stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Connection(sender)
    }

    /// User and system time so far.
    fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(path).unwrap();
        // The name, field 2, may have spaces; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        // SAFETY: takes no pointers.
        let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Duration::from_secs_f64(ticks as f64 / ticks_per_s)
    }

    /// A field of /proc/PID/status in MiB.
    fn memory(&self, field: &str) -> f64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    async fn post(
        &mut self,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> hyper::Response<hyper::body::Incoming> {
        let mut request = Request::post("/v1/executions")
            .header("host", "localhost")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.to_string()));
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request.body(body).unwrap());
        response.await.unwrap()
    }
}

/// The forms of a request that a client waits for.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// The result is stored when the execution ends.
    Waits,
    /// The request is stored, too, before the execution begins.
    Durable,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Waits => "waiting",
            Form::Durable => "durable (`Idempotency-Key`)",
        }
    }

    async fn execute(self, connection: &mut Connection, number: usize) {
        let key = format!("load-{number}");
        let headers = match self {
            Form::Waits => &[][..],
            Form::Durable => &[("idempotency-key", key.as_str())][..],
        };
        let body = json!({"language": "python", "code": "print hi"});
        let response = connection.post(headers, &body).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let result: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(result["stdout"], "hi");
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times[rank - 1].as_secs_f64() * 1e3
}

/// The fake VM alone, without HTTP and store.
async fn engine_alone() -> Vec<Duration> {
    let launcher = FakeLauncher(Arc::new(World::default()));
    let languages = Languages::load(&support::languages()).unwrap();
    let spec = MachineSpec {
        id: "load".into(),
        image: "/nowhere.cpio".into(),
        language: Arc::clone(languages.find("python").unwrap()),
        vcpus: 1,
        memory_mib: 256,
        network: false,
        template_owner: None,
        start: None,
    };
    let request: ExecuteRequest = serde_json::from_value(json!({
        "id": "load",
        "files": [{"path": "main.py", "content": "print hi"}],
        "run": {"argv": ["python3", "main.py"], "wall_time_ms": 30_000, "output_bytes": 1 << 20},
    }))
    .unwrap();
    let mut times = Vec::with_capacity(SEQUENTIAL);
    for _ in 0..SEQUENTIAL {
        let start = Instant::now();
        let cancel = CancellationToken::new();
        let launched = launcher.launch(spec.clone(), cancel.clone());
        let mut started = launched.await.unwrap();
        let vm = (started.stream, started.token.as_str());
        let machine = started.machine.as_mut();
        let grace = Duration::from_secs(5);
        guest::exchange(vm, machine, &request, grace, &cancel, |_| {})
            .await
            .unwrap();
        started.machine.stop().await;
        times.push(start.elapsed());
    }
    times
}

async fn latency(server: &Server, form: Form) -> Vec<Duration> {
    let mut connection = server.connect().await;
    let mut times = Vec::with_capacity(SEQUENTIAL);
    for number in 0..SEQUENTIAL {
        let start = Instant::now();
        form.execute(&mut connection, number).await;
        times.push(start.elapsed());
    }
    times
}

/// Requests a second.
async fn throughput(server: &Server, form: Form) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let (mut connection, next) = (server.connect().await, Arc::clone(&next));
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= CONCURRENT {
                    return;
                }
                form.execute(&mut connection, SEQUENTIAL + number).await;
            }
        });
    }
    clients.join_all().await;
    CONCURRENT as f64 / start.elapsed().as_secs_f64()
}

/// A stream of events whose `accepted` and first output have arrived.
async fn open_stream(server: &Server, body: &Value) -> hyper::body::Incoming {
    let mut connection = server.connect().await;
    let response = connection
        .post(&[("accept", "application/x-ndjson")], body)
        .await;
    assert_eq!(response.status(), 200);
    let mut events = response.into_body();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("\"output\"") {
        let frame = events.frame().await.unwrap().unwrap();
        text.extend_from_slice(&frame.into_data().unwrap());
    }
    events
}

/// Reads the output of a program that prints without a pause, and returns its bytes of JSON.
async fn read_to_end(mut events: hyper::body::Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(frame) = events.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len() as u64;
    }
    bytes
}

async fn measure() {
    println!("| row | p50 | p99 | requests a second | the server's processor time for each |");
    println!("|---|---|---|---|---|");
    let mut alone = engine_alone().await;
    let base = percentile(&mut alone, 50);
    let p99 = percentile(&mut alone, 99);
    println!("| the fake VM alone | {base:.3} ms | {p99:.3} ms | | |");
    for form in [Form::Waits, Form::Durable] {
        let server = Server::start();
        let mut times = latency(&server, form).await;
        let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
        let before = server.cpu_time();
        let rate = throughput(&server, form).await;
        let cpu = (server.cpu_time() - before).as_secs_f64() * 1e3 / CONCURRENT as f64;
        let name = form.name();
        println!("| {name} | {p50:.3} ms | {p99:.3} ms | {rate:.0} | {cpu:.3} ms |");
        println!("| {name}, less the fake VM | {:.3} ms | | | |", p50 - base);
    }

    println!("\n| the server's resident memory | MiB |\n|---|---|");
    let server = Server::start();
    Form::Waits.execute(&mut server.connect().await, 0).await;
    println!(
        "| after its first execution | {:.0} |",
        server.memory("VmRSS")
    );
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let body = json!({"language": "python", "code": "hold"});
        streams.push(open_stream(&server, &body).await);
    }
    println!(
        "| with {STREAMS} open streams | {:.0} |",
        server.memory("VmRSS")
    );
    for mib in OUTPUT_MIB {
        let body = json!({
            "language": "python",
            "code": format!("fill {mib} 65"),
            "limits": {"output_bytes": mib << 20},
        });
        let sent = read_to_end(open_stream(&server, &body).await).await;
        println!(
            "| at most, meanwhile {mib} MiB of each stream of one more program ({} MiB of JSON) | {:.0} |",
            sent >> 20,
            server.memory("VmHWM"),
        );
    }
    drop(streams);
}
