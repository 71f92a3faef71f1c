//! How a stage ends: causes, exit codes, measurements, and the death of its whole process tree.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cloude_protocol::agent::{Cause, StageResult};
use common::*;

fn run(agent: &Agent, request: &cloude_protocol::agent::ExecuteRequest) -> (StageResult, String) {
    let response = agent.execute(request);
    (response.result.run.unwrap(), response.run.stdout.to_text())
}

/// Number of processes on this machine whose command line contains `marker`.
fn alive(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

fn wait_until_dead(marker: &str) {
    let deadline = Instant::now() + PATIENCE;
    while alive(marker) > 0 {
        assert!(Instant::now() < deadline, "{marker} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn exit_codes_are_passed_on() {
    for code in [0, 1, 2, 42, 126, 127, 128, 137, 255] {
        let (result, _) = run(&agent(), &sh(&format!("exit {code}")));
        assert_eq!(
            (result.cause, result.exit_code, result.signal),
            (Cause::Exit, Some(code), None)
        );
    }
}

#[test]
fn signals_are_reported_by_number() {
    for signal in [
        libc::SIGTERM,
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGPIPE,
        libc::SIGHUP,
    ] {
        let (result, _) = run(&agent(), &sh(&format!("kill -{signal} $$; sleep 60")));
        assert_eq!(
            (result.cause, result.exit_code, result.signal),
            (Cause::Signal, None, Some(signal))
        );
    }
}

#[test]
fn the_wall_clock_limit_kills_the_whole_tree() {
    let agent = agent();
    let marker = format!("60.{}", agent.pid());
    let mut request = sh(&format!(
        "trap '' TERM INT HUP; sleep {marker} & setsid sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) ; echo on; sleep {marker}"
    ));
    // On a busy machine a short limit can pass before the tree is complete: try longer ones.
    let mut limits_ms = (0..10).map(|doubled| 300 << doubled);
    loop {
        request.run.wall_time_ms = limits_ms.next().expect("the program starts");
        let (result, stdout) = run(&agent, &request);
        assert_eq!(
            (result.cause, result.exit_code, result.signal),
            (Cause::WallTime, None, None)
        );
        let (time, limit) = (result.wall_time_us, request.run.wall_time_ms * 1000);
        assert!(time >= limit, "{time} of {limit}");
        assert_eq!(alive(&marker), 0);
        if stdout == "on\n" {
            return;
        }
    }
}

#[test]
fn background_processes_die_and_do_not_hold_the_stage() {
    let agent = agent();
    let marker = format!("61.{}", agent.pid());
    // Both inherit the program's standard output.
    let request = sh(&format!(
        "sleep {marker} & (setsid sleep {marker} &); echo done; exit 3"
    ));
    let (result, stdout) = run(&agent, &request);
    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(3)));
    assert_eq!(stdout, "done\n");
    assert_eq!(alive(&marker), 0);
}

#[test]
fn orphans_are_reaped_while_the_program_runs() {
    let script = "for i in 1 2 3; do (sh -c 'exit 1' &) ; done; sleep 0.3; while grep -qs '^State:.Z' /proc/[0-9]*/status; do sleep 0.1; done; echo none";
    let (_, stdout) = run(&agent(), &sh(script));
    assert_eq!(stdout, "none\n");
}

/// Starts a program of three processes that sleep. Returns the connection of its request, and the argument that
/// identifies the processes, once they run.
fn sleeping(agent: &Agent, seconds: u32) -> (UnixStream, String) {
    let marker = format!("{seconds}.{}", agent.pid());
    let body = serde_json::to_vec(&sh(&format!("sleep {marker} & sleep {marker}"))).unwrap();
    let mut stream = agent.connect();
    stream.write_all(&execute_bytes(&body)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while alive(&marker) < 3 {
        assert!(Instant::now() < deadline, "the program does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    (stream, marker)
}

#[test]
fn a_client_that_disconnects_ends_the_program() {
    let agent = agent();
    let (stream, marker) = sleeping(&agent, 62);
    drop(stream);
    wait_until_dead(&marker);
}

#[test]
fn the_death_of_the_agent_ends_the_program() {
    let agent = agent();
    let (_stream, marker) = sleeping(&agent, 63);
    drop(agent);
    wait_until_dead(&marker);
}

#[test]
fn a_missing_command_is_named_with_the_path_searched() {
    let mut request = request(&["python9"]);
    request.env.insert("PATH".into(), "/bin:/nowhere".into());
    let (result, _) = run(&agent(), &request);
    assert_eq!(result.cause, Cause::Infrastructure);
    assert_eq!(
        result.message.unwrap(),
        "python9: not found in PATH (/bin:/nowhere) of the image"
    );
}

#[test]
fn commands_that_cannot_be_executed_are_explained() {
    let cases = [
        ("./nothing", "", None, "./nothing: not found"),
        (
            "./plain",
            "x",
            None,
            "./plain: the program's user may not execute it",
        ),
        (
            "./text",
            "x",
            Some(0o755),
            "./text: neither an ELF program for x86-64 nor a script with a #! line",
        ),
        (
            "./lost",
            "#!/no/shell\n",
            Some(0o755),
            "./lost: its interpreter (of the #! line, or the dynamic loader) is not in the image",
        ),
    ];
    for (command, content, mode, expected) in cases {
        let mut request = request(&[command]);
        if !content.is_empty() {
            let path = command.trim_start_matches("./").to_owned();
            request.files.push(cloude_protocol::agent::File {
                path,
                content: content.into(),
                mode,
            });
        }
        let (result, _) = run(&agent(), &request);
        assert_eq!(
            (result.cause, result.message.as_deref()),
            (Cause::Infrastructure, Some(expected))
        );
    }
}

/// A static ELF program whose data segment is larger than any memory. The kernel fails to load it.
fn larger_than_memory() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let segment = |flags: u32, at: u64, bytes: u64| {
        let words = [1u64 | u64::from(flags) << 32, 0, at, at, 0, bytes, 4096];
        words.map(u64::to_le_bytes).concat()
    };
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // ET_EXEC for x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE, 64, 0] {
        elf.extend(u64::to_le_bytes(word));
    }
    // No flags; sizes of this header and of two program headers; no sections.
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend(segment(5, BASE, 4096));
    elf.extend(segment(6, 0x1000_0000, 1 << 45));
    elf
}

#[test]
fn static_data_larger_than_memory_has_cause_memory() {
    let mut request = request(&["./main"]);
    request.files.push(cloude_protocol::agent::File {
        path: "main".into(),
        content: larger_than_memory().into(),
        mode: Some(0o755),
    });

    let (result, _) = run(&agent(), &request);

    let message = result.message.unwrap_or_default();
    assert_eq!(result.cause, Cause::Memory, "{message}");
    assert!(
        message.contains("main cannot be loaded: its static data has 33554432 MiB"),
        "{message}"
    );
}

#[test]
fn a_missing_working_directory_is_named() {
    let agent = agent();
    let mut request = sh("true");
    request.working_dir = Some("deep/down".into());
    let (result, _) = run(&agent, &request);
    let message = result.message.unwrap();
    assert!(
        message.contains("/work/deep/down: No such file"),
        "{message}"
    );
}

#[test]
fn cpu_time_and_memory_cover_the_whole_tree() {
    let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; x=$(head -c 20000000 /dev/zero | tr '\\0' a); true";
    let (result, _) = run(&agent(), &sh(script));
    assert!(result.cpu_time_us > 10_000, "{}", result.cpu_time_us);
    assert!(
        result.cpu_time_us <= 8 * result.wall_time_us,
        "{} of {}",
        result.cpu_time_us,
        result.wall_time_us
    );
    assert!(
        result.peak_memory_bytes > 20_000_000,
        "{}",
        result.peak_memory_bytes
    );
}

#[test]
fn a_failed_compile_stage_ends_the_execution() {
    let mut request = sh("echo never");
    request.compile = Some(stage(&["sh", "-c", "echo broken >&2; exit 4"]));
    let response = agent().execute(&request);
    assert_eq!(response.compile.stderr.to_text(), "broken\n");
    assert_eq!(response.result.compile.unwrap().exit_code, Some(4));
    assert_eq!(
        (response.result.run, response.run.stdout.to_text()),
        (None, String::new())
    );
}

#[test]
fn the_run_stage_finds_what_the_compile_stage_made() {
    let mut request = sh("cat made; cat");
    request.compile = Some(stage(&["sh", "-c", "echo stage one > made; cat"]));
    request.stdin = "stdin".into();
    let response = agent().execute(&request);
    assert_eq!(
        response.compile.stdout.to_text(),
        "",
        "the compile stage reads nothing"
    );
    assert_eq!(response.run.stdout.to_text(), "stage one\nstdin");
}
