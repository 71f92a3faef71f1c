//! Limits of a program in an interpreter that waited for it.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use cloude_protocol::agent::{Cause, ProcessLimits, StageResult};
use common::template::*;
use common::*;

/// CAP_SYS_RESOURCE, which PID 1 of a VM has and root of a container may lack: the agent then starts a new process.
fn may_limit_others() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << 24) != 0
}

/// Runs `code` with `limits` in a fork of a template with a waiting Python.
fn limited(code: &str, limits: ProcessLimits) -> (StageResult, String) {
    let runner = runner("python", &[PYTHON, "-u", "main.py"]);
    let mut work = request(&[PYTHON, "-u", "main.py"]);
    work.files.push(file("main.py", code));
    work.run.limits = limits;
    work.identity = identity();
    let response = warmed(&runner).execute(&work);
    (response.result.run.unwrap(), response.run.stdout.to_text())
}

#[test]
fn a_waiting_interpreter_has_the_limits_of_its_program() {
    let code = "
import os, resource, threading
never = threading.Event()
for what in (lambda: os.open('/dev/null', 0), lambda: threading.Thread(target=never.wait, daemon=True).start()):
    count = 0
    try:
        while count < 1000:
            what()
            count += 1
    except (OSError, RuntimeError):
        print(count, flush=True)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
except ValueError:
    print('refused', flush=True)
os._exit(4)
";
    let limits = ProcessLimits {
        processes: Some(6),
        open_files: Some(40),
        ..ProcessLimits::default()
    };
    let (result, stdout) = limited(code, limits);
    assert_eq!(
        (result.cause, result.exit_code),
        (Cause::Processes, Some(4))
    );
    assert_eq!(result.warm, may_limit_others());
    let counts: Vec<&str> = stdout.lines().collect();
    assert!(counts[0].parse::<u32>().unwrap() <= 37, "{stdout}");
    assert_eq!(counts[1..], ["5", "refused"]);
}

#[test]
fn more_waiting_threads_than_the_limit_start_anew() {
    let runner = runner("node", &["/usr/bin/node", "main.js"]);
    let mut work = request(&["/usr/bin/node", "main.js"]);
    work.files.push(file("main.js", "console.log(1)"));
    // Node.js makes more threads when it starts, and may wait for them without end.
    work.run.limits.processes = Some(2);
    work.run.wall_time_ms = 1000;
    work.identity = identity();
    let run = warmed(&runner).execute(&work).result.run.unwrap();
    assert!(!run.warm, "{run:?}");
}

#[test]
fn a_waiting_interpreter_is_killed_at_its_cpu_time() {
    let limits = ProcessLimits {
        cpu_time_ms: Some(300),
        ..ProcessLimits::default()
    };
    let (result, _) = limited("while True: pass", limits);
    assert_eq!((result.cause, result.warm), (Cause::CpuTime, true));
    assert!(result.cpu_time_us >= 300_000, "{result:?}");
}

#[test]
fn a_waiting_interpreter_is_refused_large_files() {
    let limits = ProcessLimits {
        file_bytes: Some(5000),
        ..ProcessLimits::default()
    };
    let (result, _) = limited("open('large', 'wb').write(bytes(300000))", limits);
    assert_eq!(
        (result.cause, result.warm),
        (Cause::Disk, may_limit_others()),
        "{result:?}"
    );
}

#[test]
fn a_waiting_interpreter_shares_the_limit_of_the_disk() {
    let runner = runner("python", &[PYTHON, "-u", "main.py"]);
    let agent = warmed_in(agent_with_disk(&["--template"]), &runner);
    let mut work = request(&[PYTHON, "-u", "main.py"]);
    work.files.push(file(
        "main.py",
        "for name in ('first', '/tmp/second'): open(name, 'wb').write(bytes(600000)); print(name)",
    ));
    work.disk_bytes = Some(1_000_000);
    work.identity = identity();
    let response = agent.execute(&work);
    let run = response.result.run.unwrap();
    assert_eq!((run.cause, run.exit_code), (Cause::Disk, Some(1)));
    assert_eq!(response.run.stdout.to_text(), "first\n");
    assert!(run.warm);
}

#[test]
fn a_stack_limit_needs_a_new_process() {
    let limits = ProcessLimits {
        stack_bytes: Some(1 << 20),
        ..ProcessLimits::default()
    };
    let code = "import resource; print(resource.getrlimit(resource.RLIMIT_STACK))";
    let (result, stdout) = limited(code, limits);
    assert_eq!(stdout, "(1048576, 1048576)\n");
    assert!(!result.warm);
}
