//! A worker that plays a VM, and an engine with such workers.

#![allow(dead_code)] // Each test binary uses a part of this.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cloude_engine::languages::Languages;
use cloude_engine::{Admission, Engine, EngineConfig, Unlimited};
use cloude_protocol::language::Language;

/// Plays a VM that is booted, warmed and saved, or a blank VM that restores a snapshot and runs. It holds the
/// descriptors that it receives, with the TAP.
///
/// Files in its folder control it: it fails at the request in `fails`; it delays the warm-up while `holds` exists;
/// `agent` selects whether the agent of forks is `gone`, `refuses` each request, or `works`. It appends a line to
/// `builds` for each template.
const WORKER: &str = r#"#!/usr/bin/python3
import array, json, os, socket, sys, tempfile, threading, time
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
control = socket.socket(fileno=3)
held = []
def read(name):
    with open(os.path.join(folder, name)) as file:
        return file.read()
def say(event, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    control.sendmsg([json.dumps(event).encode()], rights)
def hear():
    data, fds, _, _ = socket.recv_fds(control, 1 << 16, 16)
    if not data:
        sys.exit(0)
    held.append(fds)
    request = json.loads(data)
    if read("fails") == request["request"]:
        say({"event": "failed", "message": "a failure on request"})
        time.sleep(1000)
    return request, fds
def receive(stream):
    stream.setblocking(True)
    text = b""
    while b"\r\n\r\n" not in text:
        text += stream.recv(1 << 16)
    head, _, body = text.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += stream.recv(1 << 16)
def answer(stream, status, kind, body):
    stream.sendall(b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body))
def agent(stream):
    receive(stream)
    if read("agent") == "refuses":
        return answer(stream, b"400 Bad Request", b"application/json", b'{"error":"no"}')
    run = dict(cause="exit", exit_code=0, signal=None, wall_time_us=1, cpu_time_us=1, peak_memory_bytes=1,
        stdout_bytes=0, stdout_dropped=0, stderr_bytes=0, stderr_dropped=0)
    events = [dict(event="identity"), dict(event="started", stage="run"), dict(event="finished", run=run)]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    answer(stream, b"200 OK", b"application/x-ndjson", lines.encode())
request, fds = hear()
if request["request"] == "boot":
    with open(os.path.join(folder, "builds"), "a") as file:
        file.write(f'{request["memory_mib"]}\n')
    request, fds = hear()
    say({"event": "connected", "id": 1})
    stream = socket.socket(fileno=fds[0])
    receive(stream)
    while os.path.exists(os.path.join(folder, "holds")):
        time.sleep(0.01)
    answer(stream, b"200 OK", b"application/json", b'{"runner":false}')
    hear()
    files = [tempfile.TemporaryFile() for _ in range(2)]
    say({"event": "saved"}, [file.fileno() for file in files])
else:
    say({"event": "blank_ready"})
    streams = hear()[1][2:]
    if read("agent") == "gone":
        # Requests to the agent fail at once.
        for stream in streams:
            os.close(stream)
    say({"event": "restored", "costs": {"ioctls": 0, "syscalls": 0, "minor_faults": 0, "elapsed_us": 0}})
    hear()
    say({"event": "started"})
    if read("agent") != "gone":
        stream = socket.socket(fileno=streams[0])
        threading.Thread(target=agent, args=[stream], daemon=True).start()
while True:
    if hear()[0]["request"] == "working_set":
        say({"event": "failed", "message": "no pages are known"})
"#;

const LANGUAGE: &str = r#"
file = "f"
image = { reference = "r", debian = { suite = "s", packages = [] } }
run.command = ["true"]
self_test = { code = "", stdin = "", args = [], stdout = "", exit_code = 0 }
machine.memory_mib = 256
"#;

/// A language whose default machine has 256 MiB.
pub fn language() -> Arc<Language> {
    Arc::new(toml::from_str(&format!("name = 'l'\n{LANGUAGE}")).unwrap())
}

/// A folder of language files with [`language`] alone.
fn languages(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("languages");
    std::fs::create_dir_all(path.join("l")).unwrap();
    std::fs::write(path.join("l/language.toml"), LANGUAGE).unwrap();
    path
}

/// A configuration whose worker, kernel, agent, image and languages lie in `folder`. Templates are not stored on
/// a disk.
pub fn config(folder: &Path) -> EngineConfig {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    file("fails", "");
    file("agent", "gone");
    file("builds", "");
    file("image.cpio", "");
    let mut config = EngineConfig {
        kernel: file("vmlinux", ""),
        run_dir: folder.join("run"),
        languages: languages(folder),
        ..EngineConfig::default()
    };
    config.agent.binary = file("agent-binary", "");
    config.vm.worker = file("worker", WORKER);
    config.pool.disk = "off".into();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&config.vm.worker, mode).unwrap();
    config
}

pub async fn engine(config: &EngineConfig) -> Arc<Engine> {
    engine_with(config, Arc::new(Unlimited)).await
}

pub async fn engine_with(config: &EngineConfig, admission: Arc<dyn Admission>) -> Arc<Engine> {
    let languages = Languages::load(&config.languages).unwrap();
    let engine = Engine::with_admission(config.clone(), languages, admission).await;
    engine.unwrap_or_else(|error| panic!("{error}"))
}
