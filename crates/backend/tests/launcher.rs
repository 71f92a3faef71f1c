//! The launcher, with a worker whose guest dies while it boots.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod fake_worker;

use cloude_backend::vm::{Launcher as _, MachineSpec};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::StartChoice;
use tokio_util::sync::CancellationToken;

/// Notes each start in the file `starts`, and dies while it boots.
const WORKER: &str = r#"#!/usr/bin/python3
import os, socket, sys
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write("x")
control = socket.socket(fileno=3)
control.recv(1 << 16)
control.send(b'{"event":"exited","reason":{"kind":"triple_fault"},"console_dropped_bytes":0}')
"#;

#[tokio::test]
async fn a_guest_that_dies_while_it_boots_is_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let config = fake_worker::config(folder.path());
    std::fs::write(&config.vm.worker, WORKER).unwrap();
    let spec = MachineSpec {
        id: "01234567-test".into(),
        image: folder.path().join("image.cpio"),
        vcpus: 1,
        memory_mib: 64,
        network: false,
        language: fake_worker::language(),
        start: Some(StartChoice::Cold),
    };
    let launcher = fake_worker::launcher(&config);

    let launched = launcher.launch(spec, CancellationToken::new()).await;

    let death = launched.err().unwrap();
    assert_eq!(death.cause, Cause::GuestPanic);
    assert!(death.message.contains("triple fault"), "{death}");
    let starts = std::fs::read(folder.path().join("starts")).unwrap();
    assert_eq!(starts.len(), 1, "no second guest hides the first one's end");
}
