//! The command line, against a test's backend.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};

use cloude_protocol::api::Execution;

use crate::backend::Backend;
use crate::binaries;

/// For `--timeout`, where a test is not about it: the most that a backend allows by default.
pub const LONGEST: &str = "600";

/// `cloude` for a backend.
pub fn command(backend: &Backend, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries::binary("cloude"));
    command
        .args(arguments)
        .env("CLOUDE_BACKEND", backend.url())
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(backend: &Backend, arguments: &[&str]) -> Output {
    command(backend, arguments).output().unwrap()
}

/// Runs it to its end with something on standard input.
pub fn run_with_input(backend: &Backend, arguments: &[&str], input: &str) -> Output {
    let mut child = command(backend, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Runs a Bash program and gives the whole result.
pub fn bash(backend: &Backend, options: &[&str], code: &str) -> Execution {
    execution(
        &command(backend, &bash_arguments(options, code))
            .output()
            .unwrap(),
    )
}

/// Starts a Bash program whose result [`execution`] reads from its output.
pub fn start_bash(backend: &Backend, options: &[&str], code: &str) -> Child {
    command(backend, &bash_arguments(options, code))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a program that says that it runs, and then does nothing until its client is [interrupted](interrupt).
pub fn start_holding(backend: &Backend) -> Child {
    let code = "echo up; exec sleep 1000000";
    let arguments = ["run", "-l", "bash", "-c", code, "--timeout", LONGEST];
    let mut child = command(backend, &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    child
}

/// Ends a client as Ctrl-C does, and with it what it runs.
pub fn interrupt(mut client: Child) {
    // SAFETY: the child has not been waited for, so that its id is still its own.
    unsafe { libc::kill(client.id() as i32, libc::SIGINT) };
    assert_eq!(client.wait().unwrap().code(), Some(130));
}

fn bash_arguments<'a>(options: &[&'a str], code: &'a str) -> Vec<&'a str> {
    [&["run", "--json", "-l", "bash", "-c", code], options].concat()
}

/// The result that `cloude run --json` printed.
pub fn execution(output: &Output) -> Execution {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", describe(output)))
}

/// An output in words, for messages.
pub fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    format!(
        "{}, stdout {:?}, stderr {:?}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}
