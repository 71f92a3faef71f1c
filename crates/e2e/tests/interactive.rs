//! Interactive programs in VMs: input, size and keys of a terminal, pipes, and signals.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude;

const OVERRIDES: &str = "vm.max_concurrent = 4";

/// Asks for a name, prints its terminal's sizes, counts Ctrl-C, and exits with 7 at Ctrl-D.
const DIALOGUE: &str = r#"
import os, signal, sys

def size(*_):
    found = os.get_terminal_size()
    print(f"size {found.columns} {found.lines}", flush=True)

signal.signal(signal.SIGWINCH, size)
size()
try:
    print("hello", input("name? "), flush=True)
    while True:
        try:
            input("ready> ")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
except EOFError:
    print("end", flush=True)
    sys.exit(7)
"#;

/// A terminal on which a client runs, and what the client has written there.
struct Terminal {
    user: File,
    program: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(columns: u16, rows: u16) -> Self {
        let size = size(columns, rows);
        let (mut user, mut program) = (0, 0);
        // SAFETY: openpty(3) writes two descriptors and reads the size; a null name and mode are allowed.
        let opened = unsafe {
            let (name, mode) = (std::ptr::null_mut(), std::ptr::null());
            libc::openpty(&mut user, &mut program, name, mode, &size)
        };
        assert_eq!(opened, 0);
        // SAFETY: both are open and belong to nobody else.
        let (user, program) = unsafe { (File::from_raw_fd(user), OwnedFd::from_raw_fd(program)) };
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, written) = (user.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]);
                written.lock().unwrap().push_str(&text);
            }
        });
        Terminal {
            user,
            program,
            shown,
        }
    }

    fn spawn(&self, backend: &Backend, arguments: &[&str]) -> Child {
        let end = || Stdio::from(self.program.try_clone().unwrap());
        let mut command = cloude::command(backend, arguments);
        let command = command.stdin(end()).stdout(end()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn types(&mut self, keys: &str) {
        self.user.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, client: &Child, columns: u16, rows: u16) {
        let size = size(columns, rows);
        // SAFETY: TIOCSWINSZ reads a winsize. The client was not waited for, so that its process id was not reused.
        unsafe {
            libc::ioctl(self.program.as_raw_fd(), libc::TIOCSWINSZ, &size);
            // The kernel signals only the processes whose controlling terminal this is.
            libc::kill(client.id() as i32, libc::SIGWINCH);
        }
    }

    /// Waits until the client has written this.
    fn shows(&self, text: &str, client: &mut Child) {
        cloude::wait_for(&format!("{text:?} on the terminal"), client, || {
            self.shown.lock().unwrap().contains(text).then_some(())
        });
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

#[test]
fn a_program_talks_on_a_terminal() {
    let backend = Backend::start(OVERRIDES);
    for start in ["cold", "fork"] {
        let mut terminal = Terminal::open(100, 30);
        let timeout = ["--timeout", cloude::LONGEST, "--start", start];
        let mut arguments = vec!["run", "-it", "-l", "python", "-c", DIALOGUE];
        arguments.extend(timeout);
        let mut client = terminal.spawn(&backend, &arguments);

        terminal.shows("size 100 30\r\nname? ", &mut client);
        terminal.types("Ada\r");
        // The guest's terminal echoes, and this one is raw.
        terminal.shows("name? Ada\r\nhello Ada\r\nready> ", &mut client);
        terminal.resize(&client, 120, 40);
        terminal.shows("size 120 40\r\n", &mut client);
        terminal.types("\x03");
        terminal.shows("interrupted\r\nready> ", &mut client);
        terminal.types("\x04");
        terminal.shows("end\r\n", &mut client);

        assert_eq!(client.wait().unwrap().code(), Some(7), "{start}");
    }
    backend.stop();
}

#[test]
fn a_pipe_is_sent_while_the_program_runs() {
    let backend = Backend::start(OVERRIDES);
    let code =
        "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nprint('end')";
    let timeout = cloude::LONGEST;
    let arguments = [
        "run",
        "-i",
        "-l",
        "python",
        "-c",
        code,
        "--timeout",
        timeout,
    ];
    let mut client = cloude::command(&backend, &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = client.stdout.take().unwrap();

    for (line, reversed) in [("abc\n", "cba\n"), ("stressed\n", "desserts\n")] {
        input.write_all(line.as_bytes()).unwrap();
        let mut answer = vec![0; reversed.len()];
        output.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), reversed);
    }
    drop(input);

    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "end\n");
    assert_eq!(client.wait().unwrap().code(), Some(0));
    backend.stop();
}

#[test]
fn an_attached_client_leaves_and_another_comes() {
    let backend = Backend::start(OVERRIDES);
    let mut terminal = Terminal::open(80, 24);
    let arguments = ["run", "-it", "-d", "-l", "python", "-c", DIALOGUE];
    let mut detached = terminal.spawn(
        &backend,
        &[&arguments[..], &["--timeout", cloude::LONGEST]].concat(),
    );
    assert_eq!(detached.wait().unwrap().code(), Some(0));
    cloude::wait_for("the id on the terminal", &mut detached, || {
        terminal.shown.lock().unwrap().contains('\n').then_some(())
    });
    let id = terminal.shown.lock().unwrap().trim().to_owned();

    let mut first = terminal.spawn(&backend, &["attach", &id]);
    terminal.shows("name? ", &mut first);
    terminal.types("\x1d");
    assert_eq!(first.wait().unwrap().code(), Some(130));
    let mut second = terminal.spawn(&backend, &["attach", &id]);
    terminal.shows("name? size 80 24\r\nname? ", &mut second);
    terminal.types("Ada\r");
    terminal.shows("hello Ada\r\nready> ", &mut second);
    terminal.types("\x04");

    assert_eq!(second.wait().unwrap().code(), Some(7));
    backend.stop();
}
