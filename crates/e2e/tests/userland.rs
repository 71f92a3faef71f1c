//! The environment of a program: system calls and /proc files of the kernel, and the image's userland.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cloude_e2e::backend::Backend;
use cloude_e2e::{binaries, cloude};
use cloude_protocol::agent::Cause;

/// Runs a file of `programs/` and returns its standard output.
fn output_of(backend: &Backend, file: &str, options: &[&str]) -> String {
    let path = binaries::repository()
        .join("crates/e2e/programs")
        .join(file);
    let arguments = [
        &["run", "--json", "-t", "100s", "--compile-timeout", "200s"],
        options,
    ]
    .concat();
    let mut command = cloude::command(backend, &arguments);
    let execution = cloude::execution(&command.arg(path).output().unwrap());
    assert_eq!(
        (execution.cause, execution.exit_code),
        (Cause::Exit, Some(0)),
        "{execution:?}"
    );
    execution.stdout.to_text().to_string()
}

fn tuned_kernel() -> Backend {
    let kernel = binaries::named_kernel("tuned").expect("no tuned kernel: run kernel/build");
    Backend::start(&format!("kernel = \"{}\"", kernel.display()))
}

#[test]
fn the_tuned_kernel_has_every_probed_interface() {
    let backend = tuned_kernel();
    let output = output_of(&backend, "kernel-interfaces.c", &["--unconfined"]);
    let missing: Vec<&str> = output
        .lines()
        .filter(|line| !line.ends_with(": ok"))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let asked_for = include_str!("../programs/kernel-interfaces.c")
        .matches("say(\"")
        .count();
    assert_eq!(output.lines().count(), asked_for);
    backend.stop();
}

#[test]
fn the_tuned_kernel_has_the_files_of_proc() {
    let backend = tuned_kernel();
    let output = output_of(&backend, "files-of-proc.py", &[]);
    let missing: Vec<&str> = output
        .lines()
        .filter(|line| !line.ends_with(" ok"))
        .collect();
    // The tuned kernel has no block layer, hence no /proc/diskstats.
    assert_eq!(missing, ["diskstats No such file or directory"]);
    backend.stop();
}

#[test]
fn the_tuned_kernel_serves_calls_at_the_vsyscall_address() {
    let backend = tuned_kernel();
    assert_eq!(output_of(&backend, "vsyscall.c", &[]), "vsyscall: ok\n");
    backend.stop();
}

#[test]
fn programs_know_time_zones() {
    let backend = Backend::start("");
    let zone = ["-e", "TZ=America/New_York"];
    assert_eq!(
        output_of(&backend, "time-zone.py", &zone),
        "2024-07-03 05:46:40 EDT\n2024-07-03T15:16:40+05:30\n"
    );
    assert_eq!(
        output_of(&backend, "time-zone.sh", &zone),
        "2024-07-03 05:46:40 EDT\n2024-07-03 05:46:40 EDT\n"
    );
    backend.stop();
}

#[test]
fn python_and_java_trust_the_usual_certificates() {
    let backend = Backend::start("");
    let python = output_of(&backend, "certificates.py", &[]);
    assert!(python.starts_with("certificates: some "), "{python}");
    assert_eq!(
        output_of(&backend, "certificates.java", &[]),
        "certificates: some\n"
    );
    backend.stop();
}

#[test]
fn c_sanitizers_find_use_after_free_and_leaks() {
    let backend = Backend::start("");
    assert_eq!(
        output_of(&backend, "sanitizers.c", &[]),
        "use after free: found\nleak: found\n"
    );
    backend.stop();
}
