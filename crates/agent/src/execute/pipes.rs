//! The pipes of a stage: standard input, output and error, and init's reports.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};

use cloude_protocol::agent::TerminalSize;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::terminal;
use crate::spare::read_spare;
use crate::user::User;

/// Bytes of one read, and the size of the output pipe (F_SETPIPE_SZ).
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The agent's ends of a stage's pipes.
#[derive(Debug)]
pub struct Pipes {
    pub(super) stdin: Option<File>,
    pub(super) stdout: File,
    /// None for a terminal, which has one stream.
    pub(super) stderr: Option<File>,
    pub(super) report: File,
    /// The agent's end of the terminal.
    pub(super) terminal: Option<File>,
}

/// The program's ends, closed in the agent once init has its copies.
#[derive(Debug)]
pub struct ProgramEnds {
    /// Read end of standard input.
    pub stdin: OwnedFd,
    /// Write end of standard output.
    pub stdout: OwnedFd,
    /// Write end of standard error.
    pub stderr: OwnedFd,
    /// Write end of the report pipe.
    pub report: OwnedFd,
}

/// A terminal instead of pipes for the three streams.
pub fn make_terminal(user: &User, size: TerminalSize) -> std::io::Result<(Pipes, ProgramEnds)> {
    let (master, slave) = terminal::open(user, size)?;
    let (report, report_in) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let pipes = Pipes {
        stdin: Some(master.try_clone()?),
        stdout: master.try_clone()?,
        stderr: None,
        report: report.into(),
        terminal: Some(master),
    };
    let ends = ProgramEnds {
        stdin: slave.try_clone()?,
        stdout: slave.try_clone()?,
        stderr: slave,
        report: report_in,
    };
    Ok((pipes, ends))
}

/// Makes the pipes of a stage, owned by `user`: opening `/dev/stdout` by name then works.
pub fn make(user: &User) -> nix::Result<(Pipes, ProgramEnds)> {
    let pipe = || pipe2(OFlag::O_CLOEXEC);
    let ((stdin_out, stdin_in), (out, out_in), (err, err_in), (report, report_in)) =
        (pipe()?, pipe()?, pipe()?, pipe()?);
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    for stream in [&stdin_out, &out, &err] {
        fchown(stream, Some(uid), Some(gid))?;
    }
    for ours in [&stdin_in, &out, &err, &report] {
        fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    // An optimization: fewer reads. It fails above fs.pipe-max-size.
    let _ = fcntl(&out, FcntlArg::F_SETPIPE_SZ(CHUNK_BYTES as i32));
    let pipes = Pipes {
        stdin: Some(stdin_in.into()),
        stdout: out.into(),
        stderr: Some(err.into()),
        report: report.into(),
        terminal: None,
    };
    Ok((
        pipes,
        ProgramEnds {
            stdin: stdin_out,
            stdout: out_in,
            stderr: err_in,
            report: report_in,
        },
    ))
}

/// One read(2) of at most a chunk, appended to `buffer`.
pub fn read_into(pipe: &File, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    read_spare(buffer, CHUNK_BYTES, |room| {
        // SAFETY: the kernel writes at most `room.len()` bytes into `room`.
        unsafe { libc::read(pipe.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) }
    })
}

/// The length of a first piece of `bytes`: at most a chunk, and no UTF-8 sequence is split.
pub fn chunk_end(bytes: &[u8]) -> usize {
    if bytes.len() <= CHUNK_BYTES {
        return bytes.len();
    }
    let back = bytes[..=CHUNK_BYTES]
        .iter()
        .rev()
        .take(4)
        .position(|byte| byte & 0xc0 != 0x80);
    CHUNK_BYTES - back.unwrap_or(0)
}
