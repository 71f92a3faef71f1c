//! Warm templates, through the worker's control socket and without `clouded`: forks have distinct identities and
//! random values, and run no program before they have an identity.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use cloude_e2e::binaries;
use cloude_initramfs_builder::boot_segment::BootSegment;
use cloude_protocol::agent::{
    AGENT_PORT, Event as AgentEvent, ExecuteRequest, File as ProgramFile, Identity, READY_PORT,
    Runner, Stage, StageResult, Stream, WarmRequest, WarmResponse,
};
use cloude_protocol::boot::BootConfig;
use cloude_protocol::language::Language;
use cloude_vmm::control::{
    self, BlankVmSpec, BootSpec, Channel, CpuBaseline, Event, Origin, Request, SpawnOptions,
    VsockSpec, WorkerProcess,
};

const TEMPLATE_TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const VSOCK: VsockSpec = VsockSpec {
    guest_cid: 3,
    ready_port: READY_PORT,
};
const MEMORY_MIB: u64 = 512;
/// Longer than every reseed interval of OpenSSL's random generators; the longest is one hour.
const CLOCK_BACK_S: u64 = 24 * 60 * 60;
/// Tolerance between the clocks of host and guest, in seconds.
const CLOCK_TOLERANCE_S: f64 = 2.0;

/// A worker process. Dropping it kills the process.
struct Worker {
    process: WorkerProcess,
    channel: Channel,
}

impl Worker {
    fn start() -> Self {
        let options = SpawnOptions::default();
        let binary = binaries::binary("cloude-vmm");
        let (process, channel) = control::spawn(&binary, &options).unwrap();
        Self { process, channel }
    }

    fn expect(&self, wanted: &Event) {
        let (event, _) = self.channel.recv::<Event>().unwrap();
        assert_eq!(&event, wanted);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An HTTP client of the agent, with a persistent vsock connection.
struct Agent(BufReader<UnixStream>);

impl Agent {
    fn post(&mut self, path: &str, token: &str, body: &str) -> (u16, String) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: vm\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or(&line).parse().unwrap();
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let body = if chunked {
            self.chunks()
        } else {
            self.bytes(length)
        };
        (status, String::from_utf8(body).unwrap())
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            body.extend(self.bytes(length));
            self.bytes(2);
            if length == 0 {
                return body;
            }
        }
    }
}

fn connect(worker: &Worker) -> Agent {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let request = Request::Connect {
        id: 1,
        port: AGENT_PORT,
    };
    worker.channel.send(&request, &[theirs.as_fd()]).unwrap();
    worker.expect(&Event::Connected { id: 1 });
    Agent(BufReader::new(ours))
}

fn origin(language: &str) -> Origin {
    Origin {
        kernel: "test".to_owned(),
        initramfs: language.to_owned(),
    }
}

fn kvm() -> File {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/kvm").unwrap()
}

fn stderr() -> File {
    File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap())
}

/// A warmed VM of a language, saved by `Request::Save`.
struct Template {
    language: Language,
    memory: File,
    vm_state: File,
}

impl Template {
    fn make(name: &str) -> Self {
        Self::set_back(name, CLOCK_BACK_S)
    }

    /// The guest's clock is `clock_back_s` seconds slow while the runner starts.
    fn set_back(name: &str, clock_back_s: u64) -> Self {
        binaries::require_kvm();
        let language = binaries::language(name);
        let kernel = binaries::kernel();
        let folder = tempfile::tempdir().unwrap();
        let config = BootConfig {
            token: TEMPLATE_TOKEN.to_owned(),
            hostname: "template".to_owned(),
            network: None,
            copy_output_to_console: false,
            shell: false,
            template: true,
        };
        let segment = BootSegment::new()
            .agent_file(&binaries::agent())
            .unwrap()
            .kernel(&kernel)
            .unwrap()
            .boot_config(&config)
            .unwrap();
        let path = folder.path().join("boot.cpio");
        std::fs::write(&path, segment.to_bytes()).unwrap();

        let worker = Worker::start();
        let boot = BootSpec {
            vcpus: 1,
            memory_mib: MEMORY_MIB,
            cmdline: "console=ttyS0 rdinit=/.cloude/agent panic=-1 random.trust_cpu=on quiet"
                .to_owned(),
            initramfs_segments: 2,
            tap: None,
            console: true,
            vsock: Some(VSOCK),
            cpu_baseline: CpuBaseline::Host,
        };
        let files = [
            kvm(),
            File::open(kernel.join("vmlinux")).unwrap(),
            File::open(binaries::image(name)).unwrap(),
            File::open(&path).unwrap(),
            stderr(),
        ];
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        worker
            .channel
            .send(&Request::Boot(boot), &descriptors)
            .unwrap();
        worker.expect(&Event::Started);
        worker.expect(&Event::Ready);
        let mut agent = connect(&worker);
        let work = serde_json::to_string(&warm_request(&language, clock_back_s)).unwrap();
        let (status, body) = agent.post("/warm", TEMPLATE_TOKEN, &work);
        assert_eq!(status, 200, "{body}");
        let answer: WarmResponse = serde_json::from_str(&body).unwrap();
        assert!(answer.runner, "the runner of {name} did not start");

        let save = Request::Save {
            origin: origin(name),
        };
        worker.channel.send(&save, &[]).unwrap();
        let (event, descriptors) = worker.channel.recv::<Event>().unwrap();
        assert_eq!(event, Event::Saved);
        let [memory, vm_state] = <[_; 2]>::try_from(descriptors).unwrap().map(File::from);
        Self {
            language,
            memory,
            vm_state,
        }
    }

    /// A running fork, and the host's new end of the vsock connection in the snapshot.
    fn fork(&self) -> (Worker, Agent) {
        let worker = Worker::start();
        let blank_vm = BlankVmSpec {
            vcpus: 1,
            memory_mib: MEMORY_MIB,
            tap: None,
            console: true,
            vsock: Some(VSOCK),
            cpu_baseline: CpuBaseline::Host,
        };
        let (kvm, console) = (kvm(), stderr());
        worker
            .channel
            .send(&Request::Blank(blank_vm), &[kvm.as_fd(), console.as_fd()])
            .unwrap();
        worker.expect(&Event::BlankReady);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let descriptors = [self.memory.as_fd(), self.vm_state.as_fd(), theirs.as_fd()];
        let restore = Request::Restore {
            origin: origin(&self.language.name),
            working_set: false,
        };
        worker.channel.send(&restore, &descriptors).unwrap();
        let (event, _) = worker.channel.recv::<Event>().unwrap();
        assert!(matches!(event, Event::Restored { .. }), "{event:?}");
        worker.channel.send(&Request::Resume, &[]).unwrap();
        worker.expect(&Event::Started);
        (worker, Agent(BufReader::new(ours)))
    }

    fn program(&self, code: &str, identity: Option<Identity>) -> ExecuteRequest {
        ExecuteRequest {
            id: "test".to_owned(),
            files: vec![file(&self.language.file, code)],
            run: stage(&self.language.run.command),
            env: self.language.run.env.clone(),
            identity,
            ..ExecuteRequest::default()
        }
    }

    /// Runs a program in three forks with distinct identities. Returns the `NAME VALUE` lines of each as a map, after
    /// it has compared host name, machine ID, boot ID and time with the identity.
    fn in_forks(&self, code: &str) -> Vec<BTreeMap<String, String>> {
        let outputs = (1..=3).map(|number| {
            let (_worker, mut agent) = self.fork();
            let identity = identity(number);
            let sent = seconds(SystemTime::now());
            let body = self.program(code, Some(identity.clone()));
            let body = serde_json::to_string(&body).unwrap();
            let (status, body) = agent.post("/execute", TEMPLATE_TOKEN, &body);
            let received = seconds(SystemTime::now());
            assert_eq!(status, 200, "{body}");
            let (text, run) = output_and_result(&body);
            let run = run.unwrap();
            assert_eq!(run.exit_code, Some(0), "{body}");
            eprintln!("fork {number}:\n{text}");
            assert!(run.warm, "the preloaded runner was not used");
            let mut lines: BTreeMap<String, String> = text
                .lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            assert_eq!(lines["hostname"], identity.hostname);
            assert_eq!(lines["machine-id"], identity.machine_id);
            assert_eq!(lines["boot-id"], identity.boot_id);
            let time: f64 = lines.remove("time").unwrap().parse().unwrap();
            assert!(
                (sent - CLOCK_TOLERANCE_S..received + CLOCK_TOLERANCE_S).contains(&time),
                "the guest's time is {time}, outside the request's {sent} to {received}"
            );
            lines
        });
        outputs.collect()
    }
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

fn file(path: &str, content: &str) -> ProgramFile {
    ProgramFile {
        path: path.to_owned(),
        content: content.to_owned().into(),
        mode: None,
    }
}

fn stage(argv: &[String]) -> Stage {
    Stage {
        argv: argv.to_vec(),
        wall_time_ms: 120_000,
        output_bytes: 100_000,
        ..Stage::default()
    }
}

/// The `POST /warm` request for a language's `[warm]` section.
fn warm_request(language: &Language, clock_back_s: u64) -> WarmRequest {
    let warm = language.warm.clone().unwrap();
    let mut run = stage(&language.run.command);
    run.argv.extend(language.self_test.args.iter().cloned());
    let rehearsal = ExecuteRequest {
        id: "rehearsal".to_owned(),
        files: vec![file(&language.file, &language.self_test.code)],
        run,
        stdin: language.self_test.stdin.clone().into(),
        env: language.run.env.clone(),
        ..ExecuteRequest::default()
    };
    WarmRequest {
        prepare: warm.prepare.iter().map(|argv| stage(argv)).collect(),
        rehearse: warm.rehearse.then_some(rehearsal).into_iter().collect(),
        runner: warm.runner.map(|runner| Runner {
            argv: language.run.command.clone(),
            env: language.run.env.clone(),
            hook_env: runner.env,
            files: runner
                .files
                .iter()
                .map(|(path, content)| file(path, content))
                .collect(),
            cold_env: runner.cold_env,
            timeout_ms: 600_000,
        }),
        clock_back_s,
    }
}

/// An identity with names derived from `number`, and entropy from the host's /dev/urandom.
fn identity(number: u8) -> Identity {
    let mut entropy = [0; 32];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut entropy)
        .unwrap();
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Identity {
        entropy: entropy.iter().map(|byte| format!("{byte:02x}")).collect(),
        wall_clock_ns: since.as_nanos().try_into().unwrap(),
        hostname: format!("fork-{number}"),
        machine_id: format!("{number:032x}"),
        boot_id: format!("00000000-0000-4000-8000-{number:012x}"),
        token: format!("{number:064x}"),
        network: None,
    }
}

/// Asserts that every fork printed a value under each name, and that no two forks share one.
fn assert_distinct(forks: &[BTreeMap<String, String>], names: &[&str]) {
    let shared: Vec<&str> = names
        .iter()
        .copied()
        .filter(|&name| {
            let values: HashSet<&str> = forks.iter().map(|fork| fork[name].as_str()).collect();
            values.len() != forks.len()
        })
        .collect();
    assert!(shared.is_empty(), "forks share {shared:?}: {forks:#?}");
}

const PYTHON: &str = "
import os, random, secrets, socket, ssl, time, uuid
print('time', time.time())
print('getrandom', os.getrandom(16).hex())
print('urandom', open('/dev/urandom', 'rb').read(16).hex())
print('random', random.random())
print('uuid4', uuid.uuid4())
print('secrets', secrets.token_hex(16))
print('ssl', ssl.RAND_bytes(16).hex())
print('boot-id', open('/proc/sys/kernel/random/boot_id').read().strip())
print('machine-id', open('/etc/machine-id').read().strip())
print('hostname', socket.gethostname())
";

/// The program's standard output and the result of its run stage, from the agent's event stream.
fn output_and_result(events: &str) -> (String, Option<StageResult>) {
    let (mut text, mut run) = (String::new(), None);
    for line in events.lines() {
        match serde_json::from_str(line).unwrap() {
            AgentEvent::Output {
                stream: Stream::Stdout,
                data,
                ..
            } => text += &data.to_text(),
            AgentEvent::Finished(result) => run = result.run,
            _ => {}
        }
    }
    (text, run)
}

#[test]
fn python_forks_have_distinct_random_values_and_names() {
    let forks = Template::make("python").in_forks(PYTHON);
    let names = [
        "getrandom",
        "urandom",
        "random",
        "uuid4",
        "secrets",
        "ssl",
        "boot-id",
        "machine-id",
        "hostname",
    ];
    assert_distinct(&forks, &names);
}

/// CPython loads OpenSSL only when the program imports `ssl`, which is after the fork, so that no reseed is needed.
#[test]
fn python_forks_differ_without_setting_the_clock_back() {
    let forks = Template::set_back("python", 0).in_forks(PYTHON);
    assert_distinct(&forks, &["getrandom", "random", "secrets", "ssl"]);
}

const NODE: &str = "
const crypto = require('crypto'), fs = require('fs'), os = require('os');
console.log('time', Date.now() / 1000);
console.log('randomBytes', crypto.randomBytes(16).toString('hex'));
console.log('randomUUID', crypto.randomUUID());
console.log('webcrypto', Buffer.from(crypto.webcrypto.getRandomValues(new Uint8Array(16))).toString('hex'));
console.log('private', crypto.generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' }).d);
console.log('Math.random', Math.random());
console.log('boot-id', fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
console.log('machine-id', fs.readFileSync('/etc/machine-id', 'utf8').trim());
console.log('hostname', os.hostname());
";

#[test]
fn node_forks_have_distinct_random_values_and_names() {
    let forks = Template::make("node").in_forks(NODE);
    let names = [
        "randomBytes",
        "randomUUID",
        "webcrypto",
        "private",
        "Math.random",
        "boot-id",
        "machine-id",
        "hostname",
    ];
    assert_distinct(&forks, &names);
}

/// The control for Node.js: OpenSSL's generator is already seeded in the template, and forks differ only because the
/// corrected clock triggers a reseed.
#[test]
fn node_forks_share_openssl_bytes_if_the_clock_was_right() {
    let forks = Template::set_back("node", 0).in_forks(NODE);
    for name in ["randomBytes", "randomUUID", "webcrypto"] {
        let values: HashSet<&str> = forks.iter().map(|fork| fork[name].as_str()).collect();
        assert_eq!(values.len(), 1, "{name}: {forks:#?}");
    }
    // These values do not come from OpenSSL.
    assert_distinct(&forks, &["Math.random", "boot-id", "machine-id"]);
}

/// A program that leaves a file, so that a later program can detect whether it ran, whatever the response was.
const RAN: &str = "
open('/tmp/ran', 'w').close()
print('it ran')
";

/// Requests an execution that the agent must refuse. Returns the HTTP status.
fn refused(agent: &mut Agent, body: &str) -> u16 {
    let (status, body) = agent.post("/execute", TEMPLATE_TOKEN, body);
    assert!(!body.contains("it ran"), "{body}");
    assert_ne!(status, 200, "{body}");
    status
}

#[test]
fn a_fork_without_an_identity_runs_nothing() {
    let template = Template::make("python");
    let (worker, mut agent) = template.fork();
    let body = serde_json::to_string(&template.program(RAN, None)).unwrap();
    assert_eq!(refused(&mut agent, &body), 403);
    // A new connection, because the agent may close one after an error response.
    let mut agent = connect(&worker);
    let look = "import os\nprint('seen', os.path.exists('/tmp/ran'))";
    let body = template.program(look, Some(identity(1)));
    let body = serde_json::to_string(&body).unwrap();
    let (status, body) = agent.post("/execute", TEMPLATE_TOKEN, &body);
    assert_eq!(status, 200, "{body}");
    assert_eq!(output_and_result(&body).0, "seen False\n", "{body}");
}

/// The name of a defect, and a function that puts it into an identity.
type Break = (&'static str, fn(&mut serde_json::Value));

#[test]
fn a_fork_with_a_broken_identity_never_runs_a_program() {
    let template = Template::make("python");
    let breaks: [Break; 9] = [
        ("short entropy", |it| it["entropy"] = "ab".repeat(31).into()),
        ("no entropy", |it| {
            drop(it.as_object_mut().unwrap().remove("entropy"))
        }),
        ("no time", |it| it["wall_clock_ns"] = 0.into()),
        ("a host name of two lines", |it| {
            it["hostname"] = "a\nb".into()
        }),
        ("no machine id", |it| it["machine_id"] = "no machine".into()),
        ("no boot id", |it| it["boot_id"] = "".into()),
        ("a short token", |it| it["token"] = "00".into()),
        // The template has no network device to configure.
        ("a network that is not there", |it| {
            it["network"] = serde_json::json!({
                "mac": [2, 0, 0, 0, 0, 1],
                "config": { "address": "172.31.7.2", "prefix_len": 24, "gateway": null, "dns": [], "mtu": null },
            });
        }),
        ("no object at all", |it| *it = "identity".into()),
    ];
    for (number, (what, damage)) in (1..).zip(breaks) {
        let (worker, mut agent) = template.fork();
        let whole = serde_json::to_value(template.program(RAN, Some(identity(number)))).unwrap();
        let mut broken = whole.clone();
        damage(&mut broken["identity"]);
        let status = refused(&mut agent, &broken.to_string());
        eprintln!("{what}: {status}");
        // A valid identity after a broken one is refused, too.
        let mut agent = connect(&worker);
        assert_eq!(refused(&mut agent, &whole.to_string()), 409, "after {what}");
    }
}
