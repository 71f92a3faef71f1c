//! However a guest ends, `cloude-vmm run` says how, in its exit code and in words.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cloude_e2e::{binaries, cloude, guest};

/// Types at a shell in the guest, and expects an exit code of `cloude-vmm run --help`.
fn ends(language: &str, options: &[&str], input: &str, code: i32) {
    let output = guest::type_at_shell(&binaries::kernel(), language, options, input);
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
    ends("bash", &[], "echo c > /proc/sysrq-trigger\n", 11);
}

#[test]
fn a_reboot_is_told() {
    ends("bash", &[], "echo b > /proc/sysrq-trigger\n", 10);
}

#[test]
fn a_triple_fault_is_told() {
    ends(
        "bash",
        &["--cmdline", "reboot=triple"],
        "echo b > /proc/sysrq-trigger\n",
        13,
    );
}

#[test]
fn a_halt_is_told() {
    // linux/reboot.h: LINUX_REBOOT_CMD_HALT.
    ends(
        "python",
        &[],
        "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0xcdef0123)'\n",
        12,
    );
}
