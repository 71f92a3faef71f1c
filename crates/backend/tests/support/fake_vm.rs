//! A fake launcher and fake images: a VM is an HTTP server in this process that plays the agent.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloude_engine::images::{Images, ReadyImage};
use cloude_engine::{AgentConnector, Failure, Launched, Launcher, Machine, MachineSpec};
use cloude_protocol::agent::{
    Cause, Event, ExecuteRequest, ExecuteResult, Input, StageName, StageResult, Stream,
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
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "t0ken";

/// The state of all VMs, and the switches of the tests.
#[derive(Default)]
pub struct World {
    pub launched: AtomicUsize,
    pub alive: AtomicUsize,
    /// Machines that were asked for further connections, and the connections.
    pub connectors: AtomicUsize,
    pub connections: AtomicUsize,
    pub most_alive: AtomicUsize,
    pub specs: Mutex<Vec<MachineSpec>>,
    /// `hold` programs run until this is notified.
    pub go_on: Notify,
    /// The VM fails when this is notified.
    pub die: Notify,
    /// The image of `rust` is built when this is cancelled.
    pub built: CancellationToken,
    /// The last request to an agent.
    pub asked: Mutex<Option<ExecuteRequest>>,
}

pub struct FakeLauncher(pub Arc<World>);

struct FakeMachine(Arc<World>, Arc<Vm>);

/// The way to the program of one VM.
struct Vm {
    /// Bytes and the end; a request waits until the program takes them.
    data: mpsc::Sender<Input>,
    /// Signals and sizes.
    control: mpsc::UnboundedSender<Input>,
    program: Mutex<Option<Inputs>>,
}

struct Inputs {
    data: mpsc::Receiver<Input>,
    control: mpsc::UnboundedReceiver<Input>,
}

impl Vm {
    fn new() -> Self {
        let (data, data_receiver) = mpsc::channel(1);
        let (control, control_receiver) = mpsc::unbounded_channel();
        Vm {
            data,
            control,
            program: Mutex::new(Some(Inputs {
                data: data_receiver,
                control: control_receiver,
            })),
        }
    }

    /// The status for an input.
    async fn apply(&self, input: Input) -> StatusCode {
        let sent = match input.data.is_some() || input.end {
            true => self.data.send(input).await.is_ok(),
            false => self.control.send(input).is_ok(),
        };
        match sent {
            true => StatusCode::NO_CONTENT,
            false => StatusCode::CONFLICT,
        }
    }
}

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
            assert_ne!(spec.vcpus, 6, "injected panic");
            world.launched.fetch_add(1, Ordering::SeqCst);
            let alive = world.alive.fetch_add(1, Ordering::SeqCst) + 1;
            world.most_alive.fetch_max(alive, Ordering::SeqCst);
            let start = match spec.start {
                Some(StartChoice::Fork) => StartKind::Fork,
                _ => StartKind::Cold,
            };
            world.specs.lock().unwrap().push(spec);
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let vm = Arc::new(Vm::new());
            tokio::spawn(agent(theirs, Arc::clone(&world), Arc::clone(&vm)));
            Ok(Launched {
                stream: Box::new(ours),
                token: TOKEN.into(),
                ip: None,
                start,
                template: None,
                network: None,
                machine: Box::new(FakeMachine(world, vm)),
            })
        }
        .boxed()
    }
}

impl Machine for FakeMachine {
    fn connector(&self) -> Result<AgentConnector, Failure> {
        let (world, vm) = (Arc::clone(&self.0), Arc::clone(&self.1));
        world.connectors.fetch_add(1, Ordering::SeqCst);
        Ok(AgentConnector::new(move || {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(agent(theirs, Arc::clone(&world), Arc::clone(&vm)));
            world.connections.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(ours))
        }))
    }

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

async fn agent(stream: tokio::io::DuplexStream, world: Arc<World>, vm: Arc<Vm>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (world, vm) = (Arc::clone(&world), Arc::clone(&vm));
        async move {
            let is_input = request.uri().path() == "/input";
            let authorized = request
                .headers()
                .get("authorization")
                .is_some_and(|v| v == &format!("Bearer {TOKEN}"));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            // Programs that print more than this wait for their reader.
            let (events, receiver) = mpsc::channel::<Bytes>(128);
            let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
                let bytes = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(bytes)), receiver))
            });
            let mut response = Response::new(StreamBody::new(frames));
            match authorized {
                true if is_input => {
                    let input: Input = serde_json::from_slice(&body).unwrap();
                    *response.status_mut() = vm.apply(input).await;
                }
                true => {
                    let inputs = vm.program.lock().unwrap().take().unwrap();
                    let request: ExecuteRequest = serde_json::from_slice(&body).unwrap();
                    *world.asked.lock().unwrap() = Some(request.clone());
                    tokio::spawn(play(request, world, events, inputs));
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

/// The content of an artifact with this many bytes.
pub fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 / 3) as u8).collect()
}

/// One transparent pixel (RFC 2083).
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\
    \x89\x00\x00\x00\x0bIDATx\x9cc`\x00\x02\x00\x00\x05\x00\x01z^\xab?\x00\x00\x00\x00IEND\xaeB`\x82";

/// Plays the program: the first word of its text selects the behaviour.
async fn play(
    request: ExecuteRequest,
    world: Arc<World>,
    events: mpsc::Sender<Bytes>,
    mut inputs: Inputs,
) {
    let send = |event: &Event| {
        let mut line = serde_json::to_vec(event).unwrap();
        line.push(b'\n');
        let _ = events.try_send(line.into());
    };
    let output = |stage, stream, text: &str| {
        send(&Event::Output {
            stage,
            stream,
            data: text.into(),
        });
    };
    let finish = |run: Option<StageResult>, compile: Option<StageResult>| {
        send(&Event::Finished(ExecuteResult {
            compile,
            run,
            artifacts_dropped: 0,
        }));
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
        "compiled" => {
            output(StageName::Compile, Stream::Stderr, "main.c:1: warning\n");
            output(StageName::Run, Stream::Stdout, argument);
            let exited = || stage_result(Cause::Exit, Some(0), None);
            finish(Some(exited()), Some(exited()));
        }
        "build" => {
            // A compiler whose program prints the rest of the text, and is run where it came as a file.
            output(StageName::Compile, Stream::Stderr, "main.c:1: warning\n");
            let binary = format!("print {argument}");
            if request.artifacts.is_some() {
                send(&Event::Artifact {
                    path: "main".into(),
                    bytes: binary.len() as u64,
                    mode: 0o755,
                });
                let data = binary.into_bytes().into();
                send(&Event::ArtifactData { data });
            } else {
                output(StageName::Run, Stream::Stdout, argument);
            }
            let exited = || stage_result(Cause::Exit, Some(0), None);
            finish(Some(exited()), Some(exited()));
        }
        "echo" => {
            // Bytes as they are, signals and sizes in words, until the end of standard input or SIGKILL.
            output(StageName::Run, Stream::Stdout, &request.stdin.to_text());
            loop {
                let input = tokio::select! {
                    Some(input) = inputs.data.recv() => input,
                    Some(input) = inputs.control.recv() => input,
                    else => return,
                };
                if let Some(data) = input.data {
                    let (stage, stream) = (StageName::Run, Stream::Stdout);
                    let echo = Event::Output {
                        stage,
                        stream,
                        data,
                    };
                    send(&echo);
                }
                if let Some(size) = input.resize {
                    let text = format!("{} x {}\n", size.columns, size.rows);
                    output(StageName::Run, Stream::Stdout, &text);
                }
                if input.signal == Some(9) {
                    finish(Some(stage_result(Cause::Signal, None, Some(9))), None);
                    break;
                }
                if let Some(signal) = input.signal {
                    output(
                        StageName::Run,
                        Stream::Stdout,
                        &format!("signal {signal}\n"),
                    );
                }
                if input.end {
                    finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
                    break;
                }
            }
        }
        "deaf" => {
            // Reads no byte until a signal.
            output(StageName::Run, Stream::Stdout, "deaf\n");
            let _ = inputs.control.recv().await;
            let mut bytes = 0;
            loop {
                let Some(input) = inputs.data.recv().await else {
                    return;
                };
                bytes += input.data.map_or(0, |data| data.0.len());
                if input.end {
                    break;
                }
            }
            output(StageName::Run, Stream::Stdout, &bytes.to_string());
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "hold" => {
            output(StageName::Run, Stream::Stdout, "held\n");
            world.go_on.notified().await;
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "steps" => {
            // Lines on both streams in turn, and a last one when the test says so.
            for step in 0..number {
                let streams = [Stream::Stdout, Stream::Stderr];
                let stream = streams[step as usize % 2];
                output(StageName::Run, stream, &format!("step {step}\n"));
            }
            world.go_on.notified().await;
            output(StageName::Run, Stream::Stdout, "end\n");
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "leave" => {
            // PATH BYTES, separated by commas.
            let mut files: Vec<_> = argument
                .split(',')
                .filter_map(|file| file.split_once(' '))
                .map(|(path, bytes)| (path, bytes.parse::<u64>().unwrap()))
                .collect();
            files.sort_unstable();
            let wanted = request.artifacts.unwrap_or_default();
            let (mut left, mut artifacts_dropped) = (wanted.max_bytes, 0);
            for (path, bytes) in files {
                if wanted.patterns.is_empty() {
                    break;
                }
                if bytes > left {
                    artifacts_dropped += 1;
                    continue;
                }
                left -= bytes;
                send(&Event::Artifact {
                    path: path.into(),
                    bytes,
                    mode: 0o640,
                });
                for part in content(bytes as usize).chunks(64 << 10) {
                    let data = part.to_vec().into();
                    send(&Event::ArtifactData { data });
                }
            }
            output(StageName::Run, Stream::Stdout, "0123456789");
            send(&Event::Finished(ExecuteResult {
                compile: None,
                run: Some(stage_result(Cause::Exit, Some(0), None)),
                artifacts_dropped,
            }));
        }
        "received" => {
            output(StageName::Run, Stream::Stdout, &request.stdin.to_text());
            let words = request.run.argv.join(" ");
            output(StageName::Run, Stream::Stdout, &words);
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "picture" => {
            // A picture of one pixel.
            for (path, data) in [("one.png", PNG), ("one.txt", b"text")] {
                let bytes = data.len() as u64;
                send(&Event::Artifact {
                    path: path.into(),
                    bytes,
                    mode: 0o644,
                });
                let data = data.to_vec().into();
                send(&Event::ArtifactData { data });
            }
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "flood" => {
            // Far more than any limit.
            for _ in 0..64 {
                output(StageName::Run, Stream::Stdout, &"x".repeat(32 << 10));
            }
            finish(Some(stage_result(Cause::Exit, Some(0), None)), None);
        }
        "fill" => {
            // MiB of one byte on each stream.
            let (mib, byte) = argument.split_once(' ').unwrap();
            let text = vec![byte.parse().unwrap(); 32 << 10];
            let line = |stream| {
                let (stage, data) = (StageName::Run, text.clone().into());
                let mut line = serde_json::to_vec(&Event::Output {
                    stage,
                    stream,
                    data,
                });
                line.as_mut().unwrap().push(b'\n');
                Bytes::from(line.unwrap())
            };
            let lines = [line(Stream::Stdout), line(Stream::Stderr)];
            for _ in 0..mib.parse::<usize>().unwrap() * 32 {
                for line in &lines {
                    let _ = events.send(line.clone()).await;
                }
            }
            let finished = ExecuteResult {
                run: Some(stage_result(Cause::Exit, Some(0), None)),
                ..ExecuteResult::default()
            };
            let mut line = serde_json::to_vec(&Event::Finished(finished)).unwrap();
            line.push(b'\n');
            let _ = events.send(line.into()).await;
        }
        "endless-line" => {
            let line = Bytes::from(vec![b'x'; 64 << 10]);
            while events.send(line.clone()).await.is_ok() {}
        }
        "garbage" => {
            let _ = events.try_send("{\"event\":\"owned\"}\n".into());
        }
        "hang-up" => {}
        other => panic!("the fake agent knows no `{other}`"),
    }
}

/// All images exist, except that of `go`, whose build fails, and that of `rust`, whose build ends with
/// [`World::built`].
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
