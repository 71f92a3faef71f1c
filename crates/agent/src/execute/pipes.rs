//! A stage's pipes: three streams, and what init reports.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use crate::spare::read_spare;
use crate::user::User;

/// What a read takes at most. A pipe is made to hold as much.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The agent's ends of a stage's pipes.
#[derive(Debug)]
pub struct Pipes {
    pub(super) stdin: Option<File>,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) report: File,
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

/// Make a stage's pipes. They belong to `user`, who may then open `/dev/stdout` and its like by name.
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
    // Fewer, larger reads; without it everything still works.
    let _ = fcntl(&out, FcntlArg::F_SETPIPE_SZ(CHUNK_BYTES as i32));
    let pipes = Pipes {
        stdin: Some(stdin_in.into()),
        stdout: out.into(),
        stderr: err.into(),
        report: report.into(),
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

/// One `read` of at most a chunk, behind what `buffer` holds.
pub fn read_into(pipe: &File, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    read_spare(buffer, CHUNK_BYTES, |room| {
        // SAFETY: the kernel writes into this room, and at most its length.
        unsafe { libc::read(pipe.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) }
    })
}

/// Where to cut `bytes` so that a piece is at most a chunk and splits no character.
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
