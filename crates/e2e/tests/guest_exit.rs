//! The exit code of `cloude-vmm run` tells how the guest ended.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use cloude_e2e::{binaries, cloude, guest};

/// Types `input` at the guest's shell and asserts the exit code, which `cloude-vmm run --help` documents.
fn ends(language: &str, options: &[&str], input: &str, code: i32) {
    ends_with(&binaries::kernel(), language, options, input, code);
}

/// Writes `key` to /proc/sysrq-trigger. Boots the stock kernel, because the tuned kernel has no SysRq.
fn ends_by_sysrq(key: char, options: &[&str], code: i32) {
    let kernel = binaries::named_kernel("stock").expect("no stock kernel: run kernel/fetch");
    let input = format!("echo {key} > /proc/sysrq-trigger\n");
    ends_with(&kernel, "bash", options, &input, code);
}

fn ends_with(kernel: &Path, language: &str, options: &[&str], input: &str, code: i32) {
    let output = guest::type_at_shell(kernel, language, options, input);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}",
        cloude::describe(&output)
    );
}

#[test]
fn leaving_the_shell_powers_off() {
    ends("bash", &[], "exit\n", 0);
}

#[test]
fn a_guest_panic_gives_exit_code_11() {
    ends_by_sysrq('c', &[], 11);
}

#[test]
fn a_guest_reboot_gives_exit_code_10() {
    ends_by_sysrq('b', &[], 10);
}

#[test]
fn a_triple_fault_gives_exit_code_13() {
    ends_by_sysrq('b', &["--cmdline", "reboot=triple"], 13);
}
