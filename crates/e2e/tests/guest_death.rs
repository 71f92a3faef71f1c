//! However a guest ends, `cloude-vmm run` says how, in its exit code and in words.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use cloude_e2e::{binaries, cloude, guest};

/// Types at a shell in the guest, and expects an exit code of `cloude-vmm run --help`.
fn ends(language: &str, options: &[&str], input: &str, code: i32) {
    ends_with(&binaries::kernel(), language, options, input, code);
}

/// The same with a key of the stock kernel's: the tuned one has no SysRq.
fn ends_by_sysrq(key: char, options: &[&str], code: i32) {
    let kernel = binaries::named_kernel("stock").expect("kernel/fetch was run");
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
fn a_panic_is_told() {
    ends_by_sysrq('c', &[], 11);
}

#[test]
fn a_reboot_is_told() {
    ends_by_sysrq('b', &[], 10);
}

#[test]
fn a_triple_fault_is_told() {
    ends_by_sysrq('b', &["--cmdline", "reboot=triple"], 13);
}
