//! Connects this terminal to the guest's console.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;

use cloude_vmm::control::ExitReason;
use cloude_vmm::devices::serial::Serial;
use cloude_vmm::exit::ExitSignal;
use cloude_vmm::panics;
use rustix::termios::{OptionalActions, Termios};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of output that wait for a slow terminal before output is dropped.
const OUTPUT_PIPE: usize = 1 << 20;
const STACK: usize = 64 << 10;

/// Puts the terminal into raw mode until it is dropped.
pub struct RawMode(Option<Termios>);

impl RawMode {
    /// Sets standard input to raw mode if it is a terminal.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !rustix::termios::isatty(&stdin) {
            return Ok(Self(None));
        }
        let before = rustix::termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        let saved = before.clone();
        panics::before(move |_| restore(&saved));
        Ok(Self(Some(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            restore(before);
        }
    }
}

fn restore(before: &Termios) {
    // Fails only if the terminal is gone.
    let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
}

/// The thread that copies the console's pipe to standard output.
pub struct Output(JoinHandle<()>);

impl Output {
    /// Starts the thread and returns the pipe's write end for the guest.
    pub fn start() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Without CAP_SYS_RESOURCE the pipe may stay smaller, and output is dropped sooner.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, OUTPUT_PIPE);
        let thread = std::thread::Builder::new()
            .name("console-output".to_owned())
            .stack_size(STACK)
            .spawn(move || copy_out(&read))?;
        Ok((Self(thread), write))
    }

    /// Waits until all output is written. The write end must be closed.
    pub fn finish(self) {
        // A panic of the thread ends the process.
        let _ = self.0.join();
    }
}

fn copy_out(from: &OwnedFd) {
    let mut stdout = io::stdout().lock();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) {
        if stdout
            .write_all(&buffer[..count])
            .and_then(|()| stdout.flush())
            .is_err()
        {
            return;
        }
    }
}

/// Starts a thread that copies standard input to the console. It ends with the process.
pub fn start_input(serial: Arc<Mutex<Serial>>, exit: ExitSignal) -> io::Result<()> {
    // A blocking eventfd: the thread waits on it while the input queue is full.
    let space = EventFd::new(0)?;
    lock(&serial).notify_input_space(space.try_clone()?);
    // Weak, since the thread waits for input after the VM has ended and would keep the console's pipe open.
    let serial = Arc::downgrade(&serial);
    std::thread::Builder::new()
        .name("console-input".to_owned())
        .stack_size(STACK)
        .spawn(move || copy_in(&serial, &exit, &space))?;
    Ok(())
}

fn copy_in(serial: &Weak<Mutex<Serial>>, exit: &ExitSignal, space: &EventFd) {
    let mut escape = Escape::default();
    let mut buffer = [0; 1024];
    let is_terminal = rustix::termios::isatty(io::stdin().as_fd());
    while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
        let typed = if is_terminal {
            escape.filter(&buffer[..count])
        } else {
            Some(buffer[..count].to_vec())
        };
        let Some(typed) = typed else {
            return exit.raise(ExitReason::Stopped);
        };
        let mut rest = &typed[..];
        while !rest.is_empty() {
            let Some(serial) = serial.upgrade() else {
                return;
            };
            let taken = lock(&serial).input(rest);
            drop(serial);
            rest = &rest[taken..];
            if !rest.is_empty() && space.read().is_err() {
                return;
            }
        }
    }
}

fn lock(serial: &Mutex<Serial>) -> MutexGuard<'_, Serial> {
    serial.lock().expect("a panic ends the process")
}

/// Detects the escape sequences that begin with Ctrl-A.
#[derive(Default)]
struct Escape {
    pending: bool,
}

const CTRL_A: u8 = 1;

impl Escape {
    /// The bytes to send to the guest; `None` after Ctrl-A x.
    fn filter(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut typed = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            match (std::mem::take(&mut self.pending), *byte) {
                (false, CTRL_A) => self.pending = true,
                (true, b'x' | b'X') => return None,
                (true, b'a' | CTRL_A) => typed.push(CTRL_A),
                (true, other) => typed.extend([CTRL_A, other]),
                (false, other) => typed.push(other),
            }
        }
        Some(typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_ends_across_two_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"ab\x01"), Some(b"ab".to_vec()));
        assert_eq!(escape.filter(b"x"), None);
    }

    #[test]
    fn ctrl_a_a_sends_ctrl_a_and_other_keys_pass() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"\x01a"), Some(vec![CTRL_A]));
        assert_eq!(escape.filter(b"\x01\x01"), Some(vec![CTRL_A]));
        assert_eq!(escape.filter(b"\x01q"), Some(vec![CTRL_A, b'q']));
        assert_eq!(escape.filter(b"xa"), Some(b"xa".to_vec()));
    }
}
