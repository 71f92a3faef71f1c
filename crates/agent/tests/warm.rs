//! Templates: identity, warm-up, and the runner that waits for its program.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;

use cloude_protocol::agent::{
    Cause, Event, ExecuteRequest, File, Identity, Interactive, ProcessLimits, Runner, StageResult,
    TerminalSize, WarmRequest, WarmResponse,
};
use cloude_protocol::boot::ImageConfig;
use common::*;

fn template() -> Agent {
    agent_template(&ImageConfig::default())
}

fn identity() -> Option<Identity> {
    Some(Identity {
        entropy: "5a".repeat(32),
        wall_clock_ns: 1_800_000_000_000_000_000,
        hostname: "fork".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        boot_id: "01234567-89ab-cdef-0123-456789abcdef".into(),
        token: "b".repeat(64),
        network: None,
    })
}

fn post(agent: &Agent, path: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    agent.raw(&[head.as_bytes(), body].concat())
}

#[test]
fn a_template_executes_only_with_an_identity() {
    let agent = template();
    let mut work = sh("echo ran");
    let refused = agent.post(&serde_json::to_vec(&work).unwrap());
    assert_eq!(refused.status, 403, "{}", refused.error());
    work.identity = identity();
    assert!(matches!(agent.events(&work)[0], Event::Identity));
    // The identity has replaced the token.
    assert_eq!(agent.get("/health").status, 401);
}

#[test]
fn nothing_runs_after_a_malformed_identity() {
    let agent = template();
    let mut work = sh("echo ran");
    work.identity = identity();
    work.identity.as_mut().unwrap().entropy.pop();
    let answer = agent.post(&serde_json::to_vec(&work).unwrap());
    assert_eq!(answer.status, 400);
    work.identity = identity();
    let answer = agent.post(&serde_json::to_vec(&work).unwrap());
    assert_eq!(answer.status, 409);
}

#[test]
fn nothing_runs_after_a_malformed_body() {
    let agent = template();
    assert_eq!(agent.post(b"{").status, 400);
    let mut work = sh("echo ran");
    work.identity = identity();
    let answer = agent.post(&serde_json::to_vec(&work).unwrap());
    assert_eq!(answer.status, 409);
}

#[test]
fn a_vm_that_is_not_a_template_is_not_warmed() {
    let agent = agent();
    assert_eq!(post(&agent, "/warm", b"{}").status, 403);
}

#[test]
fn a_failed_prepare_command_ends_the_template() {
    let agent = template();
    let work = WarmRequest {
        prepare: vec![stage(&["sh", "-c", "echo why >&2; exit 3"])],
        ..WarmRequest::default()
    };
    let answer = post(&agent, "/warm", &serde_json::to_vec(&work).unwrap());
    assert_eq!(answer.status, 500);
    assert!(answer.error().contains("why"), "{}", answer.error());
}

#[test]
fn a_warm_up_run_leaves_no_file() {
    let agent = template();
    let mut run = sh("mkdir made && echo x > made/file");
    run.files.push(file("given", "x"));
    let work = WarmRequest {
        rehearse: vec![run],
        ..WarmRequest::default()
    };
    let answer = post(&agent, "/warm", &serde_json::to_vec(&work).unwrap());
    assert_eq!(answer.status, 200);
    let left = std::fs::read_dir(agent.directory.path().join("work"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

fn file(path: &str, content: &str) -> File {
    File {
        path: path.into(),
        content: content.into(),
        mode: None,
    }
}

/// The runner of a language, with a command of this machine's.
fn runner(language: &str, argv: &[&str]) -> Runner {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
    let language = cloude_protocol::languages::load(&dir, language).unwrap();
    let warm = language.warm.unwrap().runner.unwrap();
    Runner {
        argv: argv.iter().map(|text| text.to_string()).collect(),
        env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        hook_env: warm.env,
        files: warm
            .files
            .iter()
            .map(|(path, text)| file(path, text))
            .collect(),
        cold_env: warm.cold_env,
        timeout_ms: PATIENCE.as_millis() as u64,
    }
}

/// Standard output and error, exit code, and whether the runner took the program.
fn outcome(agent: &Agent, mut work: ExecuteRequest, forked: bool) -> (String, String, i32, bool) {
    work.identity = forked.then(identity).flatten();
    let response = agent.execute(&work);
    let run = response.result.run.unwrap();
    assert_eq!(run.cause, Cause::Exit, "{run:?}");
    (
        response.run.stdout.to_text(),
        response.run.stderr.to_text(),
        run.exit_code.unwrap(),
        run.warm,
    )
}

fn warmed(runner: &Runner) -> Agent {
    warmed_in(template(), runner)
}

fn warmed_in(agent: Agent, runner: &Runner) -> Agent {
    let work = WarmRequest {
        runner: Some(runner.clone()),
        ..WarmRequest::default()
    };
    let answer = post(&agent, "/warm", &serde_json::to_vec(&work).unwrap());
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{text}");
    assert!(
        serde_json::from_slice::<WarmResponse>(&answer.body)
            .unwrap()
            .runner
    );
    agent
}

/// Asserts that a program behaves the same in a new process and in the runner.
fn same(runner: &Runner, name: &str, code: &str) {
    let mut work = request(&[]);
    work.run.argv = runner.argv.clone();
    work.run
        .argv
        .extend(["one".to_owned(), "two words".to_owned(), "é".to_owned()]);
    work.env = runner.env.clone();
    work.env.insert("MINE".to_owned(), "a=b".to_owned());
    work.files.push(file(name, code));
    work.stdin = "3\n4\n".into();
    let plain = agent();
    let forked = warmed(runner);
    let directory = |agent: &Agent| agent.directory.path().display().to_string();
    let mut expected = outcome(&plain, work.clone(), false);
    let mut seen = outcome(&forked, work, true);
    assert!(seen.3, "{seen:?}");
    seen.3 = expected.3;
    for (of, result) in [(&plain, &mut expected), (&forked, &mut seen)] {
        result.0 = result.0.replace(&directory(of), "DIR");
        result.1 = result.1.replace(&directory(of), "DIR");
    }
    assert_eq!(seen, expected);
}

/// The distribution's interpreter: shims of version managers start a shell first.
const PYTHON: &str = "/usr/bin/python3";

/// The program of a language that prints all that its hook has to leave as it is.
fn hook_test(name: &str) -> String {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn a_python_program_runs_the_same_in_the_runner() {
    same(
        &runner("python", &[PYTHON, "-u", "main.py"]),
        "main.py",
        &hook_test("python/hook_test.py"),
    );
}

#[test]
fn a_node_program_runs_the_same_in_the_runner() {
    same(
        &runner("node", &["/usr/bin/node", "main.js"]),
        "main.js",
        &hook_test("node/hook_test.js"),
    );
}

#[test]
fn programs_of_another_user_start_plainly() {
    let runner = runner("python", &[PYTHON, "-u", "main.py"]);
    let seen = [(None, false), (Some("root"), false), (None, true)].map(|(user, unconfined)| {
        let mut work = request(&[PYTHON, "-u", "main.py"]);
        work.files
            .push(file("main.py", "import os; print(os.getuid())"));
        (work.user, work.unconfined) = (user.map(str::to_owned), unconfined);
        let (stdout, _, _, warm) = outcome(&warmed(&runner), work, true);
        (stdout, warm)
    });
    let expected = [("1000\n", true), ("0\n", false), ("1000\n", false)];
    assert_eq!(
        seen,
        expected.map(|(stdout, warm)| (stdout.to_owned(), warm))
    );
}

#[test]
fn a_user_that_the_image_lacks_is_a_result_of_a_fork() {
    let agent = template();
    let mut work = sh("echo ran");
    work.identity = identity();
    work.user = Some("eve".into());
    let answer = agent.post(&serde_json::to_vec(&work).unwrap());
    assert_eq!(answer.status, 200);
    let [Event::Identity, Event::Finished(result)] = &answer.events()[..] else {
        panic!("{:?}", answer.events());
    };
    let run = result.run.as_ref().unwrap();
    assert_eq!(run.cause, Cause::Infrastructure);
    let message = run.message.as_ref().unwrap();
    assert!(message.contains("\"eve\" is not in the image"), "{message}");
}

#[test]
fn math_random_differs_between_runners() {
    let runner = runner("node", &["/usr/bin/node", "main.js"]);
    let mut work = request(&["/usr/bin/node", "main.js"]);
    work.files
        .push(file("main.js", "console.log(Math.random())"));
    let first = outcome(&warmed(&runner), work.clone(), true);
    let second = outcome(&warmed(&runner), work, true);
    assert!(first.3 && second.3);
    assert_ne!(first.0, second.0);
}

#[test]
fn a_variable_read_at_start_needs_a_new_process() {
    let runner = runner("python", &[PYTHON, "-u", "main.py"]);
    let mut work = request(&[PYTHON, "-u", "main.py"]);
    work.files.push(file(
        "main.py",
        "import os; print(os.environ['PYTHONHASHSEED'])",
    ));
    work.env.insert("PYTHONHASHSEED".into(), "7".into());
    let seen = outcome(&warmed(&runner), work, true);
    assert_eq!((seen.0.as_str(), seen.3), ("7\n", false));
}

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

#[test]
fn an_interactive_program_starts_plainly() {
    let runner = runner("python", &[PYTHON, "-u", "main.py"]);
    let mut work = request(&[PYTHON, "-u", "main.py"]);
    work.files
        .push(file("main.py", "import os; print(os.isatty(1))"));
    let terminal = Some(TerminalSize {
        columns: 80,
        rows: 25,
    });
    work.interactive = Some(Interactive { terminal });
    let seen = outcome(&warmed(&runner), work, true);
    assert_eq!((seen.0.as_str(), seen.3), ("True\r\n", false));
}
