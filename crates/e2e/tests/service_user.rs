//! A server that was started as root and gave up its rights still has everything that executions need.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, cloude, host};
use cloude_protocol::agent::Cause;

/// The account of network file systems, which every Linux has, and a copy of the languages that it may read.
fn service_user(folder: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("languages");
    let (from, to) = (binaries::languages(), copy.to_str().unwrap().to_owned());
    host::run("cp", &["-r", from.to_str().unwrap(), &to]);
    format!("user = \"nobody\"\nlanguages = {to:?}")
}

/// A field of /proc/PID/status, or `None` if the process has ended.
fn status(pid: i32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    let value = line[field.len()..].trim_start_matches(':').trim();
    Some(value.to_owned())
}

#[test]
fn the_service_user_forks_with_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::start(&service_user(folder.path()));
    assert_eq!(
        status(backend.id() as i32, "Uid").as_deref(),
        Some("65534\t65534\t65534\t65534")
    );
    for network in [&[][..], &["--network"]] {
        let options = [&["--timeout", cloude::LONGEST], network].concat();
        let execution = cloude::bash(&backend, &options, "echo up");
        assert_eq!(
            (execution.cause, execution.stdout.to_text().as_str()),
            (Cause::Exit, "up\n"),
            "{execution:?}"
        );
    }
    // The pool's workers: each in a cgroup of its own, without capabilities. A worker that the pool has just started
    // still has those of the server; the filter of system calls is the last wall that it gets.
    let workers = host::wait_for("a filter of system calls in every worker", || {
        let workers = host::children_of(backend.id());
        let confined = |id: &i32| status(*id, "Seccomp").as_deref() == Some("2");
        (!workers.is_empty() && workers.iter().all(confined)).then_some(workers)
    });
    for worker in workers {
        let capabilities = status(worker, "CapEff");
        assert_eq!(capabilities.as_deref(), Some("0000000000000000"));
        let cgroup = std::fs::read_to_string(format!("/proc/{worker}/cgroup")).unwrap();
        assert!(cgroup.contains("clouded-"), "{cgroup}");
    }
    backend.stop();
}
