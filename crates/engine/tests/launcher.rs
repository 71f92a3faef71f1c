//! A cold boot whose guest fails.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod fake_worker;

use cloude_engine::{Launcher as _, MachineSpec};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::StartChoice;
use tokio_util::sync::CancellationToken;

/// Appends to the file `starts`, and reports a triple fault during boot.
const WORKER: &str = r#"#!/usr/bin/python3
import os, socket, sys
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
control = socket.socket(fileno=3)
if not control.recv(1 << 16):
    sys.exit(0)
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write("x")
control.send(b'{"event":"exited","reason":{"kind":"triple_fault"},"console_dropped_bytes":0}')
"#;

#[tokio::test]
async fn a_guest_that_fails_during_boot_is_not_retried() {
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
        template_owner: None,
        start: Some(StartChoice::Cold),
    };
    let engine = fake_worker::engine(&config).await;

    let launched = engine.launch(spec, CancellationToken::new()).await;

    let failure = launched.err().unwrap();
    assert_eq!(failure.cause, Cause::GuestPanic);
    assert!(failure.message.contains("triple-faulted"), "{failure}");
    let starts = std::fs::read(folder.path().join("starts")).unwrap();
    assert_eq!(starts.len(), 1, "the guest was booted again");
}
