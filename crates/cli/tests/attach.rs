//! `run -i`, `run -it` and `attach`: input of a program while it runs.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use cloude_protocol::agent::{Interactive, StageName, TerminalSize};
use cloude_protocol::api::ExecutionEvent;
use common::{FakeBackend, Script, exited, result, stdout};
use serde_json::json;

/// The messages of the client.
type Log = Arc<Mutex<Vec<Message>>>;

/// The program: it sends back what it gets, and exits with 7 at the end of its input or after a `q`.
async fn echo(mut socket: WebSocket, interactive: Option<Interactive>, log: Log) {
    let id = "job-1".to_owned();
    let started = ExecutionEvent::Started {
        stage: StageName::Run,
    };
    let later = r#"{"event":"of a later version"}"#;
    let send = |event: ExecutionEvent| Message::text(serde_json::to_string(&event).unwrap());
    for message in [
        send(ExecutionEvent::Accepted { id, interactive }),
        Message::text(later),
        send(started),
        send(stdout(b"ready\n")),
    ] {
        socket.send(message).await.unwrap();
    }
    while let Some(Ok(message)) = socket.recv().await {
        log.lock().unwrap().push(message.clone());
        let bytes = match &message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) if text.as_str() == r#"{"close_stdin":true}"# => &b"q"[..].into(),
            _ => continue,
        };
        if bytes.as_ref() == b"x" {
            let frame = CloseFrame {
                code: 1012,
                reason: "the server is\u{7} shutting down".into(),
            };
            let _ = socket.send(Message::Close(Some(frame))).await;
            return;
        }
        if bytes.as_ref() == b"q" {
            let _ = socket.send(send(result(exited(7)))).await;
            continue;
        }
        let _ = socket.send(send(stdout(bytes))).await;
    }
}

fn backend(interactive: Option<Interactive>) -> (FakeBackend, Log) {
    let log = Log::default();
    let messages = Arc::clone(&log);
    let attach = get(move |upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(move |socket| echo(socket, interactive, messages))
    });
    let routes = Router::new().route("/v1/executions/job-1/attach", attach);
    let script = Script::Events(vec![result(exited(0))]);
    (FakeBackend::routed(script, routes), log)
}

fn pipes() -> Option<Interactive> {
    Some(Interactive::default())
}

fn terminal() -> Option<Interactive> {
    let terminal = Some(TerminalSize {
        columns: 1,
        rows: 1,
    });
    Some(Interactive { terminal })
}

fn command(backend: &FakeBackend, words: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("cloude"));
    command
        .args(words)
        .env("CLOUDE_BACKEND", backend.url())
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env_remove("CLOUDE_API_KEY")
        .env("TERM", "dumb");
    command
}

const RUN: [&str; 6] = ["run", "-i", "-l", "python", "-c", "x"];
const RUN_IT: [&str; 6] = ["run", "-it", "-l", "python", "-c", "x"];

fn spawn(backend: &FakeBackend, words: &[&str]) -> Child {
    command(backend, words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn read_exactly(reader: &mut impl std::io::Read, text: &str) {
    let mut found = vec![0; text.len()];
    reader.read_exact(&mut found).unwrap();
    assert_eq!(String::from_utf8_lossy(&found), text);
}

fn stderr_of(child: &mut Child) -> String {
    let mut text = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    text
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A terminal of 100 columns and 30 rows: the side of its user, and that of the program.
struct Terminal {
    user: File,
    program: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let size = size(100, 30);
        let (mut user, mut program) = (0, 0);
        // SAFETY: openpty(3) writes two descriptors and reads the size; a null name and mode are allowed.
        let opened = unsafe {
            let (name, mode) = (std::ptr::null_mut(), std::ptr::null());
            libc::openpty(&mut user, &mut program, name, mode, &size)
        };
        assert_eq!(opened, 0);
        // SAFETY: both are open and belong to nobody else.
        unsafe {
            Terminal {
                user: File::from_raw_fd(user),
                program: OwnedFd::from_raw_fd(program),
            }
        }
    }

    fn spawn(&self, backend: &FakeBackend, words: &[&str]) -> Child {
        let end = || Stdio::from(self.program.try_clone().unwrap());
        command(backend, words)
            .stdin(end())
            .stdout(end())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The flags of the terminal's mode.
    fn mode(&self) -> [u32; 4] {
        // SAFETY: tcgetattr(3) fills a whole termios.
        let mode = unsafe {
            let mut mode = std::mem::zeroed::<libc::termios>();
            assert_eq!(libc::tcgetattr(self.program.as_raw_fd(), &mut mode), 0);
            mode
        };
        [mode.c_iflag, mode.c_oflag, mode.c_cflag, mode.c_lflag]
    }

    fn is_raw(&self) -> bool {
        self.mode()[3] & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
    }
}

fn size(columns: u16, rows: u16) -> libc::winsize {
    libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: kill(2) on a child that has not been waited for, so that its id is not reused.
    unsafe { libc::kill(child.id() as i32, signal) };
}

#[test]
fn standard_input_is_sent_while_the_program_runs() {
    let (backend, log) = backend(pipes());
    let mut child = spawn(&backend, &RUN);
    let mut stdin = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();

    read_exactly(&mut output, "ready\n");
    stdin.write_all(b"one\n").unwrap();
    read_exactly(&mut output, "one\n");
    let bytes: Vec<u8> = (0..=255).collect();
    stdin.write_all(&bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    output.read_exact(&mut back).unwrap();
    drop(stdin);

    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(back, bytes);
    assert_eq!(stderr_of(&mut child), "");
    let request = backend.only_execution();
    assert_eq!((request.interactive, request.stdin.0.len()), (pipes(), 0));
    let last = log.lock().unwrap().pop().unwrap();
    assert_eq!(last.to_text().unwrap(), r#"{"close_stdin":true}"#);
}

#[test]
fn a_terminal_is_raw_while_the_program_runs() {
    let (backend, log) = backend(terminal());
    let mut pty = Terminal::open();
    let before = pty.mode();
    let mut child = pty.spawn(&backend, &RUN_IT);
    wait_for("the terminal is not raw", || pty.is_raw());

    // Ctrl-C and Ctrl-D are the program's.
    pty.user.write_all(b"a\x03\x04").unwrap();
    let typed = |log: &Log| {
        let log = log.lock().unwrap();
        let bytes = log.iter().filter_map(|message| match message {
            Message::Binary(bytes) => Some(bytes.to_vec()),
            _ => None,
        });
        bytes.flatten().collect::<Vec<u8>>()
    };
    wait_for("no keys arrive", || typed(&log) == b"a\x03\x04");
    // SAFETY: TIOCSWINSZ reads a winsize.
    unsafe { libc::ioctl(pty.program.as_raw_fd(), libc::TIOCSWINSZ, &size(120, 40)) };
    // The terminal is not the controlling one of the process, so that the kernel sends it no signal.
    signal(&child, libc::SIGWINCH);
    let resize = |columns, rows| json!({"resize": {"columns": columns, "rows": rows}}).to_string();
    let resized = |log: &Log, size: String| {
        let log = log.lock().unwrap();
        log.contains(&Message::text(size))
    };
    wait_for("no size arrives", || resized(&log, resize(120, 40)));
    pty.user.write_all(b"q").unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(pty.mode(), before);
    assert!(resized(&log, resize(100, 30)), "the first size");
    let terminal = backend.only_execution().interactive.unwrap().terminal;
    let columns_and_rows = terminal.map(|size| (size.columns, size.rows));
    assert_eq!(columns_and_rows, Some((100, 30)));
}

#[test]
fn a_signal_cancels_and_restores_the_terminal() {
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let (backend, _log) = backend(terminal());
        let pty = Terminal::open();
        let before = pty.mode();
        let mut child = pty.spawn(&backend, &RUN_IT);
        wait_for("the terminal is not raw", || pty.is_raw());

        signal(&child, number);

        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(pty.mode(), before);
        assert_eq!(*backend.shared.cancelled.lock().unwrap(), ["job-1"]);
        assert_eq!(stderr_of(&mut child), "cloude: cancelled\n");
    }
}

#[test]
fn a_broken_connection_restores_the_terminal() {
    let (backend, _log) = backend(terminal());
    let mut pty = Terminal::open();
    let before = pty.mode();
    let mut child = pty.spawn(&backend, &RUN_IT);
    wait_for("the terminal is not raw", || pty.is_raw());

    pty.user.write_all(b"x").unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(125));
    assert_eq!(pty.mode(), before);
    let message = stderr_of(&mut child);
    assert!(
        message.ends_with("closed the connection: the server is  shutting down\n"),
        "{message:?}"
    );
    assert_eq!(*backend.shared.cancelled.lock().unwrap(), ["job-1"]);
}

#[test]
fn ctrl_c_without_a_terminal_cancels() {
    let (backend, _log) = backend(pipes());
    let mut child = spawn(&backend, &RUN);
    read_exactly(child.stdout.as_mut().unwrap(), "ready\n");

    signal(&child, libc::SIGINT);

    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(*backend.shared.cancelled.lock().unwrap(), ["job-1"]);
}

#[test]
fn attach_follows_an_execution_to_its_end() {
    let (backend, _log) = backend(pipes());
    let mut child = spawn(&backend, &["attach", "job-1"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"q").unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(7));
    read_exactly(child.stdout.as_mut().unwrap(), "ready\n");
    assert!(backend.shared.executions.lock().unwrap().is_empty());
}

#[test]
fn leaving_an_attached_execution_does_not_cancel_it() {
    let (backend, _log) = backend(terminal());
    let mut pty = Terminal::open();
    let before = pty.mode();
    let mut child = pty.spawn(&backend, &["attach", "job-1"]);
    wait_for("the terminal is not raw", || pty.is_raw());

    pty.user.write_all(b"\x1d").unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(pty.mode(), before);
    assert!(backend.shared.cancelled.lock().unwrap().is_empty());
}

#[test]
fn without_its_field_an_execution_gets_no_input() {
    for (interactive, words) in [
        (None, &["attach", "job-1"][..]),
        (pipes(), &["attach", "--no-stdin", "job-1"]),
    ] {
        let (backend, log) = backend(interactive);
        let mut child = spawn(&backend, words);
        child.stdin.take().unwrap().write_all(b"q").unwrap();
        read_exactly(child.stdout.as_mut().unwrap(), "ready\n");

        signal(&child, libc::SIGINT);

        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(log.lock().unwrap().is_empty(), "{words:?}");
        assert!(backend.shared.cancelled.lock().unwrap().is_empty());
    }
}

#[test]
fn a_terminal_that_is_none_is_an_error() {
    let (backend, _log) = backend(terminal());
    let mut child = spawn(&backend, &RUN_IT);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let message = stderr_of(&mut child);
    assert!(message.contains("--tty needs a terminal"), "{message}");
    assert!(backend.shared.executions.lock().unwrap().is_empty());
}

#[test]
fn an_unknown_execution_is_the_backends_error() {
    let (backend, _log) = backend(pipes());
    let mut child = spawn(&backend, &["attach", "other"]);
    assert_eq!(child.wait().unwrap().code(), Some(125));
}

#[test]
fn a_detached_interactive_execution_waits_for_attach() {
    let (backend, _log) = backend(pipes());
    let words = ["run", "-i", "-d", "-l", "python", "-c", "x"];
    let mut child = spawn(&backend, &words);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    read_exactly(child.stdout.as_mut().unwrap(), "job-1\n");
    assert_eq!(backend.only_execution().interactive, pipes());
}
