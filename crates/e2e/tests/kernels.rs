//! The stock and the tuned kernel boot a VM with two vCPUs, virtio-rng and a network.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, cloude};
use cloude_protocol::agent::Cause;

fn boots(name: &str, build: &str) {
    let kernel =
        binaries::named_kernel(name).unwrap_or_else(|| panic!("no {name} kernel: run {build}"));
    let release = std::fs::read_to_string(kernel.join("release")).unwrap();
    let backend = Backend::start(&format!(
        "kernel = \"{}\"\nagent.transport = \"ip\"",
        kernel.display()
    ));
    let execution = cloude::bash(
        &backend,
        &["--vcpus", "2"],
        "uname -r; nproc; head -c 8 /dev/urandom | wc -c",
    );
    assert_eq!(
        (execution.cause, execution.exit_code),
        (Cause::Exit, Some(0)),
        "{execution:?}"
    );
    assert_eq!(
        execution.stdout.to_text(),
        format!("{}\n2\n8\n", release.trim())
    );
    backend.stop();
}

#[test]
fn the_stock_kernel_runs_programs() {
    boots("stock", "kernel/fetch");
}

#[test]
fn the_tuned_kernel_runs_programs() {
    boots("tuned", "kernel/build");
}
