//! Limits of a stage's processes: CPU time, processes, descriptors, file size, stack, output.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::Write as _;
use std::time::Duration;

use cloude_protocol::agent::{Cause, Event, ExecuteRequest, File, StageResult};
use common::*;

fn run(request: &ExecuteRequest) -> (StageResult, String) {
    let response = agent().execute(request);
    (response.result.run.unwrap(), response.run.stdout.to_text())
}

fn python(code: &str) -> ExecuteRequest {
    let mut request = request(&["/usr/bin/python3", "-I", "main.py"]);
    request.files.push(File {
        path: "main.py".into(),
        content: code.into(),
        mode: None,
    });
    request
}

/// Number of processes on this machine whose command line contains `marker`.
fn alive(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

#[test]
fn cpu_time_of_all_processes_ends_the_stage() {
    let marker = format!("cpu-{}", std::process::id());
    let busy = format!("sh -c 'while :; do :; done' {marker}");
    let mut request = sh(&format!("{busy} & {busy} & setsid {busy} & echo on; wait"));
    // On a slow machine a short limit can pass before the tree is complete: try longer ones.
    let mut limits_ms = (0..8).map(|doubled| 400 << doubled);
    loop {
        let limit = limits_ms.next().expect("the program starts");
        request.run.limits.cpu_time_ms = Some(limit);

        let (result, stdout) = run(&request);

        assert_eq!((result.cause, result.exit_code), (Cause::CpuTime, None));
        assert!(result.cpu_time_us >= limit * 1000, "{result:?}");
        assert_eq!(alive(&marker), 0);
        if stdout == "on\n" {
            return;
        }
    }
}

#[test]
fn cpu_time_of_children_that_ended_counts() {
    // No process of them uses much, so that RLIMIT_CPU would not end them.
    let mut request = sh("while :; do (:); done");
    request.run.limits.cpu_time_ms = Some(200);

    let (result, _) = run(&request);

    assert_eq!(result.cause, Cause::CpuTime);
}

#[test]
fn a_compiler_has_a_limit_of_cpu_time_of_its_own() {
    let mut request = sh("echo never");
    let mut compile = stage(&["sh", "-c", "while :; do :; done"]);
    compile.limits.cpu_time_ms = Some(100);
    request.compile = Some(compile);

    let result = agent().execute(&request).result;

    assert_eq!(result.compile.unwrap().cause, Cause::CpuTime);
    assert_eq!(result.run, None);
}

/// Context switches of the agent's threads so far.
fn wake_ups(agent: &Agent) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let statuses = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    statuses
        .filter_map(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}

/// The context switches of the agent while a program sleeps for longer than its limit of CPU time, and the program's end.
fn asleep(limit_ms: u64) -> (Option<u64>, StageResult) {
    let agent = agent();
    let work = agent.directory.path().join("work");
    let seconds = limit_ms as f64 / 1000.0 + 0.5;
    let script = format!("sleep {seconds}; : > done; while [ ! -e go ]; do sleep 0.1; done");
    let mut request = sh(&script);
    request.run.limits.cpu_time_ms = Some(limit_ms);
    let body = serde_json::to_vec(&request).unwrap();
    let mut stream = agent.connect();
    stream.write_all(&execute_bytes(&body)).unwrap();
    let answer = std::thread::spawn(move || read_answer(&mut stream));
    let mut woken = None;
    while woken.is_none() && !answer.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
        woken = work.join("done").exists().then(|| wake_ups(&agent));
    }
    std::fs::write(work.join("go"), "").unwrap();
    let events = answer.join().unwrap().events();
    let Some(Event::Finished(result)) = events.last() else {
        panic!("no result in {events:?}");
    };
    (woken, result.run.clone().unwrap())
}

#[test]
fn sleeping_uses_no_cpu_time_of_program_or_agent() {
    // On a slow machine the start of a shell uses as much as a short limit: try longer ones.
    for limit_ms in [1500, 6000, 24000] {
        if let (Some(woken), result) = asleep(limit_ms) {
            assert!(woken < 60, "the agent woke up {woken} times");
            assert_eq!(result.cause, Cause::Exit);
            return;
        }
    }
    panic!("sleeping counts as CPU time");
}

const THREADS: &str = r#"
import threading, sys
never = threading.Event()
try:
    for count in range(100):
        threading.Thread(target=never.wait, daemon=True).start()
except RuntimeError:
    print(count, flush=True)
    import os
    os._exit(int(sys.argv[1]))
"#;

#[test]
fn a_program_that_fails_at_the_process_limit_says_so() {
    let mut request = python(THREADS);
    request.run.argv.push("3".into());
    request.run.limits.processes = Some(8);

    let (result, stdout) = run(&request);

    assert_eq!(
        (result.cause, result.exit_code),
        (Cause::Processes, Some(3))
    );
    assert_eq!(stdout, "7\n", "the main thread is one of them");
    let message = result.message.unwrap();
    assert!(message.contains("8 at once are allowed"), "{message}");
}

#[test]
fn a_program_that_copes_with_the_process_limit_exits() {
    let mut request = python(THREADS);
    request.run.argv.push("0".into());
    request.run.limits.processes = Some(8);

    let (result, _) = run(&request);

    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(0)));
}

#[test]
fn the_process_limit_holds_for_root_and_sessions() {
    let script = "for i in 1 2 3 4 5 6 7 8; do setsid sleep 60 & done; exit 5";
    let mut request = as_root(sh(script));
    request.run.limits.processes = Some(5);

    let (result, _) = run(&request);

    assert_eq!(result.cause, Cause::Processes, "{result:?}");
}

const OPEN: &str = r#"
import os, resource
files = []
try:
    while len(files) < 5000:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print(files[-1], error.errno)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
    print("raised")
except ValueError:
    print("refused")
"#;

#[test]
fn open_files_are_limited_even_for_root() {
    for request in [python(OPEN), as_root(python(OPEN))] {
        let mut request = request;
        request.run.limits.open_files = Some(20);

        let (_, stdout) = run(&request);

        assert_eq!(stdout, "19 24\nrefused\n");
    }
}

#[test]
fn a_file_beyond_its_limit_is_the_disk() {
    let mut request = sh("head -c 300000 /dev/zero > large; kill -XFSZ $$");
    request.run.limits.file_bytes = Some(100_000);
    assert_eq!(run(&request).0.cause, Cause::Disk);

    let mut request = sh("exec head -c 300000 /dev/zero > large");
    request.run.limits.file_bytes = Some(100_000);
    let (result, _) = run(&request);
    assert_eq!(
        (result.cause, result.signal),
        (Cause::Disk, Some(libc::SIGXFSZ))
    );
}

#[test]
fn an_interpreter_that_ignores_sigxfsz_reached_the_disk_limit() {
    let code =
        "import os\nos.makedirs('deep/down')\nopen('deep/down/large', 'wb').write(bytes(300000))";
    let mut request = python(code);
    request.run.limits.file_bytes = Some(100_000);

    let (result, _) = run(&request);

    assert_eq!((result.cause, result.exit_code), (Cause::Disk, Some(1)));
    let message = result.message.unwrap();
    assert!(
        message.contains("deep/down/large has 100000 bytes"),
        "{message}"
    );
}

#[test]
fn a_failure_with_small_files_is_an_exit() {
    let mut request = sh("head -c 99999 /dev/zero > almost; exit 1");
    request.run.limits.file_bytes = Some(100_000);

    assert_eq!(run(&request).0.cause, Cause::Exit);
}

#[test]
fn the_stack_limit_is_the_programs() {
    let mut request = sh("ulimit -s; ulimit -Hs");
    request.run.limits.stack_bytes = Some(1 << 20);

    assert_eq!(run(&request).1, "1024\n1024\n");
}

#[test]
fn the_output_limit_can_end_the_program() {
    let mut request = sh("echo begin; yes");
    request.run.output_bytes = 1000;
    request.run.kill_at_output_limit = true;

    let (result, stdout) = run(&request);

    assert_eq!((result.cause, result.exit_code), (Cause::OutputLimit, None));
    assert_eq!(stdout, format!("begin\n{}", "y\n".repeat(497)));
    assert_eq!(result.stdout_bytes - result.stdout_dropped, 1000);
}

#[test]
fn the_output_limit_counts_for_standard_error_too() {
    let mut request = sh("printf 12345678901 >&2");
    request.run.output_bytes = 10;
    request.run.kill_at_output_limit = true;
    let response = agent().execute(&request);

    assert_eq!(response.result.run.unwrap().cause, Cause::OutputLimit);
    assert_eq!(response.run.stderr.to_text(), "1234567890");
}

#[test]
fn output_of_exactly_the_limit_is_allowed() {
    let mut request = sh("printf 1234567890; printf 1234567890 >&2");
    request.run.output_bytes = 10;
    request.run.kill_at_output_limit = true;

    let (result, stdout) = run(&request);

    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(0)));
    assert_eq!(stdout, "1234567890");
}
