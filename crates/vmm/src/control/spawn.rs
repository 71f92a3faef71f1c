//! Starts a worker process in its namespaces and its cgroup.
//!
//! clone3(2) makes the process, and the process makes the rest of its namespaces, so that the kernel undoes all of it
//! if any step fails. The worker gives up what is left by itself, after exec ([`crate::jail::enter`]).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::exec::{Failure, Plan};
use super::{Channel, WorkerProcess};
use crate::jail::{Wall, Walls, identity::WORKER_ID};

/// How to start a worker.
#[derive(Debug, Default)]
pub struct SpawnOptions {
    /// The walls to set up. The worker ends with [`super::Event::Failed`] if one of them fails in its process.
    pub walls: Walls,
    /// The user and group on the host of a worker with [`Wall::Uid`].
    pub uid: Option<u32>,
    /// Where a worker with [`Wall::Cgroup`] goes.
    pub cgroup: CgroupEntry,
}

/// A cgroup to start a process in.
#[derive(Debug, Default)]
pub struct CgroupEntry {
    /// The directory of a cgroup of version 2: the process is created in it (CLONE_INTO_CGROUP).
    pub directory: Option<File>,
    /// Files `cgroup.procs` of cgroups of version 1, one for each hierarchy: the process is moved there before it runs
    /// the worker.
    pub procs: Vec<File>,
}

/// Starts `binary worker WALLS` and returns the process and the host's end of its control socket.
///
/// The worker ends when the socket closes, which the kernel does when the caller ends for any reason.
/// (PR_SET_PDEATHSIG would not do: it fires when the spawning thread ends, which may be earlier.) The worker's standard
/// output is the caller's standard error, its standard input is /dev/null, and its environment is empty. It inherits
/// no other descriptor. The caller must reap the process.
pub fn spawn(binary: &Path, options: &SpawnOptions) -> io::Result<(WorkerProcess, Channel)> {
    let (host, worker) = Channel::pair()?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let null = File::open("/dev/null")?;
    let files = [
        duplicate(null.as_fd())?,
        duplicate(io::stderr().as_fd())?,
        duplicate(worker.as_fd())?,
        duplicate(theirs.as_fd())?,
    ];
    drop((worker, theirs));
    let plan = Plan {
        binary: c_string(binary.as_os_str())?,
        walls: c_string(OsStr::new(&options.walls.to_string()))?,
        namespaces: options.walls.has(Wall::Namespaces),
        stdin: files[0].as_raw_fd(),
        stderr: files[1].as_raw_fd(),
        control: files[2].as_raw_fd(),
        parent: files[3].as_raw_fd(),
        other_end: ours.as_raw_fd(),
    };
    let mut process = clone(&plan, options.cgroup.directory.as_ref())?;
    drop(files);
    let started = prepare(process.id(), options)
        .and_then(|()| ours.write_all(&[1]))
        .and_then(|()| executed(&mut ours));
    if let Err(error) = started {
        // It may have ended by itself.
        let _ = process.kill();
        let _ = process.wait();
        return Err(error);
    }
    Ok((process, host))
}

/// A duplicate above the numbers that the worker's own descriptors will have.
fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 16)?)
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the worker's path has a NUL byte",
        )
    })
}

// include/uapi/linux/sched.h; those of libc overflow.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes the process, which waits for a byte before it does anything.
fn clone(plan: &Plan, cgroup: Option<&File>) -> io::Result<WorkerProcess> {
    let mut pidfd: RawFd = -1;
    let mut flags = libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    if plan.namespaces {
        flags |= (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64;
    }
    // SAFETY: all bytes zero are a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(directory) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid and outlive the call. Without CLONE_VM the child has a copy of this process's
    // memory and one thread. `exec` only makes system calls, as is needed where another thread may have held a lock.
    let pid = unsafe {
        match libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        ) {
            0 => super::exec::exec(plan),
            pid => pid,
        }
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: clone3 stored a new descriptor, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(WorkerProcess::new(pid as u32, pidfd))
}

/// Maps the process's user and moves it to its cgroups.
fn prepare(pid: u32, options: &SpawnOptions) -> io::Result<()> {
    for procs in &options.cgroup.procs {
        let mut procs: &File = procs;
        procs
            .write_all(pid.to_string().as_bytes())
            .map_err(in_step("moving the worker to its cgroup"))?;
    }
    if !options.walls.has(Wall::Namespaces) {
        return Ok(());
    }
    let write = |name: &str, text: String| {
        std::fs::write(format!("/proc/{pid}/{name}"), text)
            .map_err(in_step("mapping the worker's user"))
    };
    let (uid, gid) = match options.uid {
        Some(id) => (id, id),
        None => {
            // Without CAP_SETGID a group can be mapped only if setgroups(2) is denied.
            write("setgroups", "deny".to_owned())?;
            let id = rustix::process::geteuid().as_raw();
            (id, rustix::process::getegid().as_raw())
        }
    };
    write("uid_map", format!("{WORKER_ID} {uid} 1"))?;
    write("gid_map", format!("{WORKER_ID} {gid} 1"))
}

fn in_step(step: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{step}: {error}"))
}

/// Waits until the process runs the worker, which closes the stream, or has sent why it does not.
fn executed(stream: &mut UnixStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    match Failure::decode(&bytes) {
        None if bytes.is_empty() => Ok(()),
        None => Err(io::Error::other(
            "the new process ended before it ran the worker",
        )),
        Some(failure) => Err(failure.into()),
    }
}
