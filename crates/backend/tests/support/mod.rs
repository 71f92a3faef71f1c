//! A backend without VMs: its launcher starts an agent in this process, a real HTTP server that
//! plays what the code asks for.

#![allow(dead_code)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cloude_backend::config::Config;
use cloude_backend::http;
use cloude_backend::jobs::{Parts, Service};
use cloude_backend::scheduler::{Capacity, Scheduler};
use cloude_backend::store::{Retention, Store};
use cloude_engine::images::{Images, ReadyImage};
use cloude_engine::languages::Languages;
use cloude_engine::{Failure, Launched, Launcher, Machine, MachineSpec};
use cloude_protocol::agent::{
    Cause, Event, ExecuteRequest, ExecuteResult, StageName, StageResult, Stream,
};
use cloude_protocol::api::{StartChoice, StartKind};
use cloude_protocol::language::Language;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "t0ken";

pub fn languages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages")
}

/// What happened to machines.
#[derive(Default)]
pub struct World {
    pub launched: AtomicUsize,
    pub alive: AtomicUsize,
    pub most_alive: AtomicUsize,
    pub specs: Mutex<Vec<MachineSpec>>,
    /// `hold` programs run until this is notified.
    pub go_on: Notify,
    /// The machine dies when this is notified.
    pub die: Notify,
    /// The image of `rust` is built when this is cancelled.
    pub built: CancellationToken,
    /// What the agent was asked, last.
    pub asked: Mutex<Option<ExecuteRequest>>,
}

pub struct FakeLauncher(pub Arc<World>);

struct FakeMachine(Arc<World>);

impl Launcher for FakeLauncher {
    fn launch(
        &self,
        spec: MachineSpec,
        _cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Launched, Failure>> {
        async move {
            let world = Arc::clone(&self.0);
            if spec.id.is_empty() || spec.vcpus == 7 {
                return Err(Failure::infrastructure("no machine with seven vCPUs"));
            }
            assert_ne!(spec.vcpus, 6, "a fault of our own");
            world.launched.fetch_add(1, Ordering::SeqCst);
            let alive = world.alive.fetch_add(1, Ordering::SeqCst) + 1;
            world.most_alive.fetch_max(alive, Ordering::SeqCst);
            let start = match spec.start {
                Some(StartChoice::Fork) => StartKind::Fork,
                _ => StartKind::Cold,
            };
            world.specs.lock().unwrap().push(spec);
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(agent(theirs, Arc::clone(&world)));
            Ok(Launched {
                stream: Box::new(ours),
                token: TOKEN.into(),
                ip: None,
                start,
                template: None,
                network: None,
                machine: Box::new(FakeMachine(world)),
            })
        }
        .boxed()
    }
}

impl Machine for FakeMachine {
    fn failed(&mut self) -> BoxFuture<'_, Failure> {
        async {
            self.0.die.notified().await;
            Failure {
                cause: Cause::GuestPanic,
                message: "the guest's kernel panicked".into(),
            }
        }
        .boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            self.0.alive.fetch_sub(1, Ordering::SeqCst);
        }
        .boxed()
    }
}

async fn agent(stream: tokio::io::DuplexStream, world: Arc<World>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let world = Arc::clone(&world);
        async move {
            let authorized = request
                .headers()
                .get("authorization")
                .is_some_and(|v| v == &format!("Bearer {TOKEN}"));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (events, receiver) = mpsc::unbounded_channel::<Bytes>();
            let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
                let bytes = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(bytes)), receiver))
            });
            let mut response = Response::new(StreamBody::new(frames));
            match authorized {
                true => {
                    let request: ExecuteRequest = serde_json::from_slice(&body).unwrap();
                    *world.asked.lock().unwrap() = Some(request.clone());
                    tokio::spawn(play(request, world, events));
                }
                false => *response.status_mut() = StatusCode::UNAUTHORIZED,
            }
            Ok::<_, Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub fn stage_result(cause: Cause, exit_code: Option<i32>, signal: Option<i32>) -> StageResult {
    StageResult {
        cause,
        exit_code,
        signal,
        wall_time_us: 1500,
        cpu_time_us: 900,
        peak_memory_bytes: 1 << 20,
        stdout_bytes: 0,
        stdout_dropped: 0,
        stderr_bytes: 0,
        stderr_dropped: 0,
        warm: false,
        message: None,
    }
}

/// The program's text says what the agent plays.
async fn play(request: ExecuteRequest, world: Arc<World>, events: mpsc::UnboundedSender<Bytes>) {
    let send = |event: &Event| {
        let mut line = serde_json::to_vec(event).unwrap();
        line.push(b'\n');
        let _ = events.send(line.into());
    };
    let output = |stage, stream, text: &str| {
        send(&Event::Output {
            stage,
            stream,
            data: text.into(),
        });
    };
    let finish = |run: Option<StageResult>, compile: Option<StageResult>| {
        send(&Event::Finished(ExecuteResult { compile, run }));
    };
    let code = request.files[0].content.to_text();
    let (command, argument) = code.split_once(' ').unwrap_or((&code, ""));
    let number = argument.parse::<i32>().unwrap_or(0);
    send(&Event::Started {
        stage: StageName::Run,
    });
    match command {
        "print" => {
            output(StageName::Run, Stream::Stdout, argument);
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "exit" => {
            output(StageName::Run, Stream::Stderr, "bye\n");
            finish(Some(stage_result(Cause::Exit, Some(number), None)), None);
        }
        "signal" => finish(Some(stage_result(Cause::Signal, None, Some(number))), None),
        "forever" => finish(Some(stage_result(Cause::WallTime, None, Some(9))), None),
        "uncompilable" => {
            output(StageName::Compile, Stream::Stderr, "main.c:1: error\n");
            finish(None, Some(stage_result(Cause::Exit, Some(1), None)));
        }
        "hold" => {
            output(StageName::Run, Stream::Stdout, "held\n");
            world.go_on.notified().await;
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "flood" => {
            // Far past any limit, from a guest that keeps to none.
            for _ in 0..64 {
                output(StageName::Run, Stream::Stdout, &"x".repeat(32 << 10));
            }
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "endless-line" => {
            while events.send(Bytes::from(vec![b'x'; 64 << 10])).is_ok() {
                tokio::task::yield_now().await;
            }
        }
        "garbage" => {
            let _ = events.send("{\"event\":\"owned\"}\n".into());
        }
        "hang-up" => {}
        other => panic!("the fake agent knows no `{other}`"),
    }
}

/// All images are there, but the one of `go`, which cannot be built, and that of `rust`, whose build ends when
/// the world says so.
pub struct FakeImages(pub Arc<World>);

fn image_of(language: &Language) -> ReadyImage {
    ReadyImage {
        path: "/nowhere.cpio".into(),
        version: Some(language.with_version("1.2.3")),
        digest: "sha256:1".into(),
        checked_at: 0,
    }
}

impl Images for FakeImages {
    fn ready(&self, language: &Language) -> Option<ReadyImage> {
        let built = !matches!(language.name.as_str(), "go" | "rust");
        built.then(|| image_of(language))
    }

    fn ensure<'a>(
        &'a self,
        language: &'a Arc<Language>,
        _memory_mib: u64,
    ) -> BoxFuture<'a, Result<ReadyImage, String>> {
        async {
            if language.name == "rust" {
                self.0.built.cancelled().await;
            }
            match language.name != "go" {
                true => Ok(image_of(language)),
                false => Err("no image; `cloude-initramfs build --language go`".into()),
            }
        }
        .boxed()
    }
}

pub struct Backend {
    pub url: String,
    pub service: Service,
    pub world: Arc<World>,
    pub state: Arc<tempfile::TempDir>,
    pub stop: CancellationToken,
}

pub fn capacity(vms: usize, queue: usize) -> Capacity {
    Capacity {
        vms,
        vcpus: 64,
        memory_mib: 8192,
        queue,
        queue_bytes: 256 << 20,
    }
}

impl Backend {
    pub async fn start() -> Self {
        Backend::with(
            capacity(2, 16),
            Arc::new(tempfile::tempdir().unwrap()),
            |_| {},
        )
        .await
    }

    pub async fn with(
        capacity: Capacity,
        state: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let world = Arc::new(World::default());
        let mut config = Config {
            state_dir: state.path().to_owned(),
            ..Config::default()
        };
        config.limits.body_bytes = 1 << 20;
        config.limits.code_bytes = 64 << 10;
        change(&mut config);
        let retention = Retention {
            age_ms: i64::MAX / 4,
            jobs: 1000,
            bytes: 1 << 30,
        };
        let body_bytes = config.limits.body_bytes;
        let service = Service::new(Parts {
            config,
            languages: Languages::load(&languages()).unwrap(),
            images: Arc::new(FakeImages(Arc::clone(&world))),
            launcher: Arc::new(FakeLauncher(Arc::clone(&world))),
            scheduler: Scheduler::new(capacity),
            store: Store::open(state.path(), retention).unwrap(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let router = http::router(service.clone(), body_bytes);
        tokio::spawn(http::serve(
            listener,
            router,
            stop.clone(),
            CancellationToken::new(),
        ));
        Backend {
            url,
            service,
            world,
            state,
            stop,
        }
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> Answer {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let (mut sender, _connection) = self.connect().await;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(http_body_util::Full::new(body.into()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            body,
        }
    }

    /// A connection; aborting the task closes it.
    pub async fn connect(
        &self,
    ) -> (
        hyper::client::conn::http1::SendRequest<http_body_util::Full<Bytes>>,
        tokio::task::JoinHandle<()>,
    ) {
        let address = self.url.trim_start_matches("http://");
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        (sender, task)
    }

    /// Polls the original interface as its client did.
    pub async fn finished(&self, id: &str) -> serde_json::Value {
        for _ in 0..30_000 {
            let status = self.get(&format!("/status/{id}")).await.json();
            if status["status"] == "done" || status["status"] == "error" {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} does not finish");
    }

    /// Waits until that many machines are alive.
    pub async fn alive(&self, count: usize) {
        for _ in 0..30_000 {
            if self.world.alive.load(Ordering::SeqCst) == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{} machines are alive, not {count}",
            self.world.alive.load(Ordering::SeqCst)
        );
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }
}
