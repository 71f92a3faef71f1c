//! An agent as an ordinary process on a Unix socket, and a minimal HTTP client for it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

pub mod session;
pub mod template;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloude_protocol::Data;
use cloude_protocol::agent::{Event, ExecuteRequest, ExecuteResult, Stage, StageName, Stream};
use cloude_protocol::boot::ImageConfig;

pub const TOKEN: &str = "0123456789abcdef";

/// Bound on everything that is waited for. Only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Agent {
    process: Child,
    pub directory: tempfile::TempDir,
}

pub fn agent() -> Agent {
    agent_with(&ImageConfig::default())
}

pub fn agent_for(user: &str) -> Agent {
    agent_with(&ImageConfig {
        user: user.into(),
        ..ImageConfig::default()
    })
}

pub fn agent_with(image: &ImageConfig) -> Agent {
    start(image, &[])
}

/// A template. As an ordinary process it applies only the token of an identity.
pub fn agent_template(image: &ImageConfig) -> Agent {
    start(image, &["--template"])
}

/// An agent with a file system of its own on the work directory and on /tmp.
pub fn agent_with_disk(options: &[&str]) -> Agent {
    // Not in /tmp, which the agent covers.
    let parent = match std::env::temp_dir() {
        parent if parent.starts_with("/tmp") => "/var/tmp".into(),
        parent => parent,
    };
    let directory = tempfile::tempdir_in(parent).unwrap();
    let options = [options, &["--disk"]].concat();
    start_in(directory, &ImageConfig::default(), &options)
}

fn start(image: &ImageConfig, options: &[&str]) -> Agent {
    start_in(tempfile::tempdir().unwrap(), image, options)
}

fn start_in(directory: tempfile::TempDir, image: &ImageConfig, options: &[&str]) -> Agent {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests make namespaces: run them as root"
    );
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("token"), TOKEN).unwrap();
    std::fs::write(path("image.json"), serde_json::to_vec(image).unwrap()).unwrap();
    std::fs::create_dir(path("work")).unwrap();
    std::fs::create_dir(path("hidden")).unwrap();
    std::fs::write(path("hidden/boot.json"), TOKEN).unwrap();
    // The program's user must be able to enter the work directory.
    std::fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_cloude-agent"))
        .args(["--serve-unix", path("socket").to_str().unwrap()])
        .args(["--token-file", path("token").to_str().unwrap()])
        .args(["--image-config", path("image.json").to_str().unwrap()])
        .args(["--work-dir", path("work").to_str().unwrap()])
        .args(["--hide", path("hidden").to_str().unwrap()])
        .args(options)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let agent = Agent { process, directory };
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(agent.directory.path().join("socket")).is_err() {
        assert!(Instant::now() < deadline, "the agent does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    agent
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status, head and dechunked body of a response.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn error(&self) -> String {
        serde_json::from_slice::<cloude_protocol::agent::ErrorBody>(&self.body)
            .unwrap()
            .error
    }

    pub fn events(&self) -> Vec<Event> {
        let lines = self
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.path().join("socket")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `bytes` and reads until the agent closes the connection.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read_answer(&mut stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        let head = format!(
            "GET {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        self.raw(head.as_bytes())
    }

    pub fn post(&self, body: &[u8]) -> Answer {
        self.raw(&execute_bytes(body))
    }

    /// Runs an execution and returns all its events.
    pub fn events(&self, request: &ExecuteRequest) -> Vec<Event> {
        let answer = self.post(&serde_json::to_vec(request).unwrap());
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.events()
    }

    /// Runs an execution and returns its result and output.
    pub fn execute(&self, request: &ExecuteRequest) -> Response {
        let events = self.events(request);
        let output = |stage| Output {
            stdout: Data(streamed(&events, stage, Stream::Stdout)),
            stderr: Data(streamed(&events, stage, Stream::Stderr)),
        };
        let Some(Event::Finished(result)) = events.last() else {
            panic!("no result in {events:?}");
        };
        Response {
            result: result.clone(),
            compile: output(StageName::Compile),
            run: output(StageName::Run),
        }
    }
}

pub struct Response {
    pub result: ExecuteResult,
    pub compile: Output,
    pub run: Output,
}

pub struct Output {
    pub stdout: Data,
    pub stderr: Data,
}

pub fn execute_bytes(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /execute HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn read_answer(stream: &mut UnixStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    answer(&bytes)
}

/// The answer that all `bytes` of a connection are.
pub fn answer(bytes: &[u8]) -> Answer {
    let split = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a whole head");
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &bytes[split + 4..];
    let body = if head.contains("Transfer-Encoding: chunked") {
        unchunk(rest)
    } else {
        rest.to_vec()
    };
    Answer { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes
            .windows(2)
            .position(|window| window == b"\r\n")
            .expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

pub fn request(argv: &[&str]) -> ExecuteRequest {
    ExecuteRequest {
        id: "test".into(),
        run: stage(argv),
        ..ExecuteRequest::default()
    }
}

pub fn stage(argv: &[&str]) -> Stage {
    Stage {
        argv: argv.iter().map(|text| text.to_string()).collect(),
        wall_time_ms: PATIENCE.as_millis() as u64,
        output_bytes: 1 << 20,
        ..Stage::default()
    }
}

pub fn sh(script: &str) -> ExecuteRequest {
    request(&["sh", "-c", script])
}

/// The request, as root.
pub fn as_root(mut request: ExecuteRequest) -> ExecuteRequest {
    request.user = Some("root".into());
    request
}

/// The joined output events of one stream of a stage.
pub fn streamed(events: &[Event], of_stage: StageName, of_stream: Stream) -> Vec<u8> {
    let mut all = Vec::new();
    for event in events {
        if let Event::Output {
            stage,
            stream,
            data,
        } = event
            && (*stage, *stream) == (of_stage, of_stream)
        {
            all.extend_from_slice(&data.0);
        }
    }
    all
}
