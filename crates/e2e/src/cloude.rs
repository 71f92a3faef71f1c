//! Runs `cloude` against the [`Backend`] of a test.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Output, Stdio};

use cloude_protocol::api::Execution;

use crate::backend::Backend;
use crate::{binaries, host};

/// `--timeout` of tests that do not test it, in seconds: the default maximum of `clouded`.
pub const LONGEST: &str = "600";

/// A `cloude` command with `CLOUDE_BACKEND` set and an empty standard input.
pub fn command(backend: &Backend, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries::binary("cloude"));
    command
        .args(arguments)
        .env("CLOUDE_BACKEND", backend.url())
        .stdin(Stdio::null());
    command
}

/// Runs [`command`] and waits for it.
pub fn run(backend: &Backend, arguments: &[&str]) -> Output {
    command(backend, arguments).output().unwrap()
}

/// Runs [`command`] with `input` on standard input and waits for it.
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

/// Runs a Bash program and returns its [`Execution`].
pub fn bash(backend: &Backend, options: &[&str], code: &str) -> Execution {
    execution(
        &command(backend, &bash_arguments(options, code))
            .output()
            .unwrap(),
    )
}

/// Starts a Bash program. [`execution`] parses the result from the output of the returned client.
pub fn start_bash(backend: &Backend, options: &[&str], code: &str) -> Child {
    command(backend, &bash_arguments(options, code))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a program that sleeps until its client is [interrupted](interrupt). Returns once the program runs.
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

/// [`host::wait_for`] an effect of a client's program. If the client ends without it, panics at once with the
/// client's output.
pub fn wait_for<T>(what: &str, client: &mut Child, mut condition: impl FnMut() -> Option<T>) -> T {
    host::wait_for(what, || {
        // Read before the condition: the client's last action may have fulfilled the condition.
        let ended = client.try_wait().unwrap();
        let value = condition();
        if let (Some(status), None) = (ended, &value) {
            let output = Output {
                status,
                stdout: read_all(client.stdout.take()),
                stderr: read_all(client.stderr.take()),
            };
            panic!("{what}: the client ended first: {}", describe(&output));
        }
        value
    })
}

fn read_all(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).unwrap();
    }
    bytes
}

/// Sends SIGINT to a client, which cancels its execution, and checks its exit code 130.
pub fn interrupt(mut client: Child) {
    // SAFETY: takes no pointers; the child was not waited for, so that its process id was not reused.
    unsafe { libc::kill(client.id() as i32, libc::SIGINT) };
    assert_eq!(client.wait().unwrap().code(), Some(130));
}

fn bash_arguments<'a>(options: &[&'a str], code: &'a str) -> Vec<&'a str> {
    [&["run", "--json", "-l", "bash", "-c", code], options].concat()
}

/// Parses the [`Execution`] that `cloude run --json` printed.
pub fn execution(output: &Output) -> Execution {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", describe(output)))
}

/// Formats exit status, standard output and standard error for a panic message.
pub fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
    format!(
        "{}, stdout {:?}, stderr {:?}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}
