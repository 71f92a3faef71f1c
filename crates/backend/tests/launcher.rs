//! The launcher, with workers that play what happens to a VM.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cloude_backend::config::Config;
use cloude_backend::store::{Retention, Store};
use cloude_backend::vm::{Death, Launcher as _, MachineSpec, Started, VmLauncher};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::StartChoice;
use tokio_util::sync::CancellationToken;

/// Notes each start in the file `starts`; the control socket is `control`.
const PREAMBLE: &str = r#"#!/usr/bin/python3
import os, socket, sys, time
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write("x")
    number = starts.tell()
control = socket.socket(fileno=3)
def die():
    control.recv(1 << 16)
    control.send(b'{"event":"exited","reason":{"kind":"triple_fault"},"console_dropped_bytes":0}')
    sys.exit(0)
def serve():
    control.recv(1 << 16)
    control.recv(1 << 16)
    control.send(b'{"event":"connected","id":1}')
    time.sleep(1000)
"#;

const LANGUAGE: &str = r#"
name = "l"
file = "f"
image = { reference = "r", debian = { suite = "s", packages = [] } }
run.command = ["true"]
self_test = { code = "", stdin = "", args = [], stdout = "", exit_code = 0 }
"#;

async fn launch(folder: &Path, body: &str) -> Result<Started, Death> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut config = Config {
        kernel: file("vmlinux", ""),
        ..Config::default()
    };
    config.agent.binary = file("agent", "");
    config.pool.disk = "off".into();
    config.vm.worker = file("worker", &format!("{PREAMBLE}{body}\n"));
    std::fs::set_permissions(&config.vm.worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let retention = Retention {
        age_ms: i64::MAX,
        jobs: 1,
        bytes: 1 << 30,
    };
    let store = Store::open(folder, retention).unwrap();
    let spec = MachineSpec {
        id: "01234567-test".into(),
        image: file("image.cpio", ""),
        vcpus: 1,
        memory_mib: 64,
        network: false,
        language: Arc::new(toml::from_str(LANGUAGE).unwrap()),
        start: Some(StartChoice::Cold),
    };
    let launcher = VmLauncher::new(&config, store).unwrap();
    launcher.launch(spec, CancellationToken::new()).await
}

fn starts(folder: &Path) -> usize {
    std::fs::read(folder.join("starts")).unwrap().len()
}

#[tokio::test]
async fn a_guest_that_dies_before_its_agent_is_ready_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let started = launch(folder.path(), "die() if number == 1 else serve()").await;
    let started = started.unwrap_or_else(|death| panic!("{death}"));
    assert_eq!(starts(folder.path()), 2);
    started.machine.stop().await;
}

#[tokio::test]
async fn a_guest_that_dies_twice_is_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let Err(death) = launch(folder.path(), "die()").await else {
        panic!("it started");
    };
    assert_eq!(death.cause, Cause::GuestPanic);
    assert!(death.message.contains("triple fault"), "{death}");
    assert_eq!(starts(folder.path()), 2);
}
