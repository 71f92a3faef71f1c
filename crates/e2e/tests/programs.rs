//! Programs that fail, exceed a limit, or print large outputs.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Output;

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude;
use cloude_protocol::agent::Cause;

/// Prints 50 MB in distinct lines of 8 bytes, so that a missing or misplaced part is detected. Without a format
/// option `seq` increments text, which is fast.
const FIFTY_MB: &str = "seq 1000000 7249999";
const FIFTY_MB_BYTES: usize = 6_250_000 * 8;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(backend: &Backend, options: &[&str], code: &str) -> Output {
    cloude::run(
        backend,
        &[&["run", "-l", "bash", "-c", code], options].concat(),
    )
}

#[test]
fn exit_codes_distinguish_failure_signal_and_timeout() {
    let backend = Backend::start("");

    let failed = run(&backend, &[], "echo out; echo err >&2; exit 42");
    assert_eq!(
        failed.status.code(),
        Some(42),
        "{}",
        cloude::describe(&failed)
    );
    assert_eq!(
        (text(&failed.stdout), text(&failed.stderr)),
        ("out\n".to_owned(), "err\n".to_owned())
    );

    let killed = run(&backend, &[], "echo before; kill -KILL $$");
    assert_eq!(
        killed.status.code(),
        Some(137),
        "{}",
        cloude::describe(&killed)
    );
    assert_eq!(text(&killed.stdout), "before\n");
    assert!(
        text(&killed.stderr).contains("signal 9 (SIGKILL"),
        "{}",
        cloude::describe(&killed)
    );

    // On a busy machine a short limit may expire before the program prints, so double it until it does.
    let mut limits = (0..9).map(|doubled| (1 << doubled).to_string());
    loop {
        let limit = limits
            .next()
            .expect("the program printed nothing within 256 s");
        let endless = run(
            &backend,
            &["--timeout", &limit],
            "echo before; sleep 1000 & while :; do :; done",
        );
        assert_eq!(
            endless.status.code(),
            Some(124),
            "{}",
            cloude::describe(&endless)
        );
        assert!(
            text(&endless.stderr).contains("--timeout"),
            "{}",
            cloude::describe(&endless)
        );
        if text(&endless.stdout) == "before\n" {
            break;
        }
    }

    backend.stop();
}

#[test]
fn exhausted_memory_gives_cause_memory() {
    let backend = Backend::start("");
    let execution = cloude::bash(
        &backend,
        &["--memory", "256"],
        // An endless line, which `tail` buffers in memory.
        "exec tail /dev/zero",
    );
    assert_eq!(execution.cause, Cause::Memory, "{execution:?}");
    backend.stop();
}

#[test]
fn truncated_output_has_head_tail_and_a_dropped_count() {
    let backend = Backend::start("");
    let output = run(
        &backend,
        &["--timeout", cloude::LONGEST, "--output-limit", "1M"],
        FIFTY_MB,
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        cloude::describe(&output)
    );
    assert!(
        output.stdout.starts_with(b"1000000\n1000001\n"),
        "{}",
        cloude::describe(&output)
    );
    assert!(output.stdout.ends_with(b"7249998\n7249999\n"));
    assert!(
        output.stdout.len() <= 1 << 20,
        "{} bytes exceed the limit",
        output.stdout.len()
    );
    let dropped = FIFTY_MB_BYTES - output.stdout.len();
    let notice = format!("{dropped} bytes of standard output were dropped here");
    assert!(
        text(&output.stderr).contains(&notice),
        "{notice:?} is not in {:?}",
        text(&output.stderr)
    );
    backend.stop();
}

#[test]
fn fifty_megabytes_below_the_limit_arrive_unchanged() {
    let backend = Backend::start("");
    let output = run(
        &backend,
        &["--timeout", cloude::LONGEST, "--output-limit", "60M"],
        FIFTY_MB,
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        cloude::describe(&output)
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.stdout.len(), FIFTY_MB_BYTES);
    for (number, line) in (1_000_000..).zip(output.stdout.chunks(8)) {
        assert_eq!(line, format!("{number}\n").as_bytes());
    }
    backend.stop();
}
