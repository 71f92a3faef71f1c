//! A Linux guest with the agent, for hosts whose KVM boots kernels.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use cloude_vmm::control::{BlankVmSpec, BootSpec, CpuBaseline, Event, Origin, Request, VsockSpec};
use cloude_vmm::probe::{KvmKind, kvm_kind};

use super::{Worker, collect, kvm, memfd};

/// The files that a guest boots from.
pub struct Files {
    kernel: PathBuf,
    image: PathBuf,
    agent: PathBuf,
}

impl Files {
    /// The tuned kernel and the Python image of the cache, and the agent (CLOUDE_AGENT_BINARY). If KVM boots no
    /// kernel or a file is missing, `None` and a message on standard error.
    pub fn find() -> Option<Self> {
        let kind = kvm_kind();
        if kind != KvmKind::Hardware {
            eprintln!("skipped: KVM is of kind {kind} and boots no kernel; use tools/with-kvm");
            return None;
        }
        let cache = std::env::var_os("CLOUDE_CACHE_DIR").map_or_else(
            || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/cloude"),
            PathBuf::from,
        );
        let agent = std::env::var_os("CLOUDE_AGENT_BINARY").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cloude/bin/cloude-agent"),
            PathBuf::from,
        );
        let files = Self {
            kernel: cache.join("kernels/tuned/vmlinux"),
            image: cache.join("images/python.cpio"),
            agent,
        };
        let missing = [&files.kernel, &files.image, &files.agent]
            .into_iter()
            .find(|path| !path.exists());
        if let Some(path) = missing {
            eprintln!("skipped: there is no {}", path.display());
            return None;
        }
        Some(files)
    }
}

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const VSOCK: VsockSpec = VsockSpec {
    guest_cid: 3,
    ready_port: 1025,
};
const AGENT_PORT: u32 = 1024;
const MEMORY_MIB: u64 = 256;

pub fn origin() -> Origin {
    Origin {
        kernel: "tuned".to_owned(),
        initramfs: "python".to_owned(),
    }
}

/// A snapshot of a guest that waits for a request on its vsock connection.
pub struct Snapshot {
    vcpus: u8,
    pub memory: File,
    pub vm_state: File,
}

impl Snapshot {
    /// Boots a guest, sends one request, and saves the guest.
    pub fn make(files: &Files, vcpus: u8) -> Self {
        let worker = Worker::start();
        let spec = BootSpec {
            vcpus,
            memory_mib: MEMORY_MIB,
            cmdline: "console=ttyS0 rdinit=/.cloude/agent panic=-1 random.trust_cpu=on loglevel=6"
                .to_owned(),
            initramfs_segments: 2,
            tap: None,
            console: true,
            vsock: Some(VSOCK),
            cpu_baseline: CpuBaseline::Host,
        };
        let open = |path: &Path| File::open(path).unwrap();
        let own = memfd(&segment(&std::fs::read(&files.agent).unwrap()));
        let console = console();
        worker.boot(
            &spec,
            &[&open(&files.kernel), &open(&files.image), &own],
            Some(console.into()),
        );
        worker.expect(&Event::Started);
        worker.expect(&Event::Ready);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connect = Request::Connect {
            id: 1,
            port: AGENT_PORT,
        };
        worker.channel.send(&connect, &[theirs.as_fd()]).unwrap();
        drop(theirs);
        worker.expect(&Event::Connected { id: 1 });
        let mut agent = Agent(BufReader::new(ours));
        assert_eq!(agent.health(), 200);
        let (memory, vm_state) = worker.save(origin());
        Self {
            vcpus,
            memory,
            vm_state,
        }
    }

    /// A fork of the snapshot.
    pub fn fork(&self) -> Fork {
        self.fork_with(None)
    }

    /// [`Snapshot::fork`] with a working set from [`Fork::working_set`].
    pub fn fork_with(&self, list: Option<&File>) -> Fork {
        let worker = Worker::start();
        let spec = BlankVmSpec {
            vcpus: self.vcpus,
            memory_mib: MEMORY_MIB,
            tap: None,
            console: true,
            vsock: Some(VSOCK),
            cpu_baseline: CpuBaseline::Host,
        };
        let (kvm, (console, said)) = (kvm(), collect());
        worker
            .channel
            .send(&Request::Blank(spec), &[kvm.as_fd(), console.as_fd()])
            .unwrap();
        drop(console);
        worker.expect(&Event::BlankReady);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut descriptors = vec![self.memory.as_fd(), self.vm_state.as_fd(), theirs.as_fd()];
        descriptors.extend(list.map(File::as_fd));
        let restore = Request::Restore {
            origin: origin(),
            working_set: list.is_some(),
        };
        worker.channel.send(&restore, &descriptors).unwrap();
        match worker.event() {
            Event::Restored { costs } => eprintln!("restored: {costs:?}"),
            event => panic!("{event:?}"),
        }
        Fork {
            worker,
            agent: Agent(BufReader::new(ours)),
            console: said,
        }
    }
}

/// A fork, paused until [`Fork::resume`].
pub struct Fork {
    pub worker: Worker,
    pub agent: Agent,
    console: JoinHandle<Vec<u8>>,
}

impl Fork {
    pub fn resume(&self) {
        self.worker.channel.send(&Request::Resume, &[]).unwrap();
        self.worker.expect(&Event::Started);
    }

    /// The number of written pages, and the working set.
    pub fn working_set(&self) -> (u64, File) {
        let (channel, request) = (&self.worker.channel, Request::WorkingSet);
        channel.send(&request, &[]).unwrap();
        match channel.recv().unwrap() {
            (Event::WorkingSet { written_pages, .. }, list) => {
                (written_pages, list.into_iter().next().unwrap().into())
            }
            (event, _) => panic!("{event:?}"),
        }
    }

    /// Ends the fork and returns its console output.
    pub fn end(self) -> String {
        drop(self.worker);
        String::from_utf8_lossy(&self.console.join().unwrap()).into_owned()
    }
}

/// A duplicate of the test's standard error, for the console.
fn console() -> File {
    File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap())
}

/// The agent's HTTP client over one persistent connection.
pub struct Agent(BufReader<UnixStream>);

impl Agent {
    /// The status of `GET /health`.
    pub fn health(&mut self) -> u16 {
        self.ask("GET", "/health", "").0
    }

    /// Runs a Python program and returns its standard output.
    pub fn python(&mut self, program: &str) -> String {
        let request = serde_json::json!({
            "id": "test",
            "files": [{"path": "main.py", "content": program}],
            "run": {
                "argv": ["python3", "main.py"],
                "wall_time_ms": 120_000,
                "output_bytes": 100_000,
            },
        });
        let (status, body) = self.ask("POST", "/execute", &request.to_string());
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        match answer["run"]["stdout"].as_str() {
            Some(text) => text.to_owned(),
            None => panic!("{body}"),
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: vm\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or(&line).parse().unwrap();
        let mut len = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

/// An initramfs segment with the agent and its configuration.
fn segment(agent: &[u8]) -> Vec<u8> {
    let config = serde_json::json!({ "token": TOKEN, "hostname": "vm" }).to_string();
    let mut cpio = Vec::new();
    entry(&mut cpio, ".cloude", 0o40_700, b"");
    entry(&mut cpio, ".cloude/agent", 0o100_700, agent);
    entry(&mut cpio, ".cloude/boot.json", 0o100_600, config.as_bytes());
    entry(&mut cpio, "TRAILER!!!", 0, b"");
    cpio
}

/// A member of a newc archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn entry(cpio: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
    let fields = [
        cpio.len() as u32, // A number of its own for each, or they would be links of one file.
        mode,
        0,
        0,
        1,
        0,
        size,
        0,
        0,
        0,
        0,
        name_size,
        0,
    ];
    cpio.extend(b"070701");
    for field in fields {
        cpio.extend(format!("{field:08x}").bytes());
    }
    cpio.extend(name.bytes());
    cpio.push(0);
    cpio.resize(cpio.len().next_multiple_of(4), 0);
    cpio.extend(content);
    cpio.resize(cpio.len().next_multiple_of(4), 0);
}
