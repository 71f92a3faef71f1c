//! Templates: identity, warm-up, and the runner that waits for its program.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use cloude_protocol::agent::{
    Cause, Event, ExecuteRequest, Interactive, Runner, TerminalSize, WarmRequest,
};
use common::template::*;
use common::*;

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
