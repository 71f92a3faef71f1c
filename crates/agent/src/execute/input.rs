//! Standard input, terminal and signals of an interactive run stage, for `POST /input` on other connections.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cloude_protocol::agent::{Input, TerminalSize};

use super::{process, terminal};

/// An input that was not applied, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No interactive run stage is running.
    #[error(
        "no interactive run stage is running: send input after its `started`, and before it ends"
    )]
    NotRunning,
    /// The program, or an earlier `end`, has closed standard input.
    #[error("standard input is closed")]
    Closed,
    /// The program has pipes.
    #[error("the program has no terminal: `resize` needs `interactive.terminal`")]
    NoTerminal,
    /// A size of 0 or above 1000.
    #[error("the size is {columns} columns and {rows} rows; give 1 to 1000 of each")]
    Size {
        /// From the request.
        columns: u16,
        /// From the request.
        rows: u16,
    },
    /// Not a signal.
    #[error("{0} is not a signal; give 1 to 64")]
    Signal(i32),
    /// The client disconnected before all bytes were written.
    #[error("the client disconnected")]
    Gone,
}

/// The way to an interactive program. One for each VM.
#[derive(Debug, Default)]
pub struct InputPort {
    program: Mutex<Option<Program>>,
    /// Signalled when standard input opens and when the program ends.
    changed: Condvar,
    /// Held while bytes are written, so that those of two requests do not mix. Signals and sizes do not wait for it.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Program {
    /// The process id of its init, which is not reaped while `program` is locked.
    init: i32,
    terminal: Option<Arc<File>>,
    stdin: Stdin,
}

#[derive(Debug)]
enum Stdin {
    /// The request's `stdin` comes first.
    Feeding,
    Open(Arc<File>),
    Closed,
}

/// Checks a terminal's size.
pub fn check_size(size: TerminalSize) -> Result<(), InputError> {
    let TerminalSize { columns, rows } = size;
    let allowed = 1..=1000;
    match allowed.contains(&columns) && allowed.contains(&rows) {
        true => Ok(()),
        false => Err(InputError::Size { columns, rows }),
    }
}

impl InputPort {
    /// The program runs, below the process `init`.
    pub fn start(&self, init: i32, terminal: Option<File>) {
        *lock(&self.program) = Some(Program {
            init,
            terminal: terminal.map(Arc::new),
            stdin: Stdin::Feeding,
        });
    }

    /// The request's `stdin` is written. `stdin` is none if the program has closed it.
    pub fn open(&self, stdin: Option<File>) {
        if let Some(program) = &mut *lock(&self.program) {
            program.stdin = stdin.map_or(Stdin::Closed, |stdin| Stdin::Open(Arc::new(stdin)));
        }
        self.changed.notify_all();
    }

    /// The program has ended. Its init may be reaped afterwards.
    pub fn end(&self) {
        *lock(&self.program) = None;
        self.changed.notify_all();
    }

    /// Applies `input`. Blocks until the program has room for all bytes, it ends, or `client` disconnects.
    pub fn apply(&self, input: &Input, client: BorrowedFd<'_>) -> Result<(), InputError> {
        input.resize.map_or(Ok(()), check_size)?;
        if let Some(signal) = input.signal.filter(|signal| !(1..=64).contains(signal)) {
            return Err(InputError::Signal(signal));
        }
        if lock(&self.program).is_none() {
            return Err(InputError::NotRunning);
        }
        if let Some(size) = input.resize {
            let terminal = self.terminal()?.ok_or(InputError::NoTerminal)?;
            terminal::resize(&terminal, size).map_err(|_| InputError::Closed)?;
        }
        if input.data.is_some() || input.end {
            let _turn = lock(&self.writing);
            if let Some(data) = &input.data {
                self.write(&data.0, client)?;
            }
            if input.end {
                self.close(client)?;
            }
        }
        input.signal.map_or(Ok(()), |signal| self.signal(signal))
    }

    fn terminal(&self) -> Result<Option<Arc<File>>, InputError> {
        let program = lock(&self.program);
        let program = program.as_ref().ok_or(InputError::NotRunning)?;
        Ok(program.terminal.clone())
    }

    /// Standard input, once the request's `stdin` is written.
    fn stdin(&self) -> Result<Arc<File>, InputError> {
        let mut program = lock(&self.program);
        loop {
            match program.as_ref().map(|program| &program.stdin) {
                None => return Err(InputError::NotRunning),
                Some(Stdin::Closed) => return Err(InputError::Closed),
                Some(Stdin::Open(file)) => return Ok(Arc::clone(file)),
                Some(Stdin::Feeding) => {}
            }
            let waited = self.changed.wait(program);
            program = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, mut bytes: &[u8], client: BorrowedFd<'_>) -> Result<(), InputError> {
        let stdin = self.stdin()?;
        while !bytes.is_empty() {
            match (&*stdin).write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_for_room(&stdin, client)?;
                }
                // EPIPE: no process has it open for reading.
                Err(_) => {
                    self.open(None);
                    return Err(InputError::Closed);
                }
            }
        }
        Ok(())
    }

    fn close(&self, client: BorrowedFd<'_>) -> Result<(), InputError> {
        match self.terminal()? {
            Some(terminal) => {
                let end = terminal::end_of_file(&terminal).map_err(|_| InputError::Closed)?;
                self.write(&[end], client)
            }
            None => {
                // `writing` is locked, so that no other request has a reference: these two are the last ones to the pipe.
                drop(self.stdin()?);
                self.open(None);
                Ok(())
            }
        }
    }

    fn signal(&self, signal: i32) -> Result<(), InputError> {
        let program = lock(&self.program);
        let program = program.as_ref().ok_or(InputError::NotRunning)?;
        let foreground = program.terminal.as_deref().and_then(terminal::foreground);
        // The program is the leader of its group (setsid).
        let group = foreground
            .or_else(|| process::program_of(program.init))
            .ok_or(InputError::NotRunning)?;
        // SAFETY: kill(2) with numbers. Below -1 it is a process group.
        match unsafe { libc::kill(-group, signal) } {
            0 => Ok(()),
            _ => Err(InputError::NotRunning),
        }
    }
}

/// Waits until `stdin` can be written. Polls the client too, for its end.
fn wait_for_room(stdin: &File, client: BorrowedFd<'_>) -> Result<(), InputError> {
    let entry = |fd, events| libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let mut fds = [
        entry(stdin.as_raw_fd(), libc::POLLOUT),
        entry(client.as_raw_fd(), libc::POLLRDHUP),
    ];
    // SAFETY: the array outlives the call, and its length is passed with it.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as _, -1) };
    let [stdin, client] = fds.map(|fd| fd.revents);
    if stdin & (libc::POLLERR | libc::POLLHUP) != 0 {
        return Err(InputError::Closed);
    }
    if client != 0 {
        return Err(InputError::Gone);
    }
    Ok(())
}

/// Ignores poisoning: every critical section leaves a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
