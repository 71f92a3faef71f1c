//! [`WorkerProcess`]: the process of a worker, held by a pidfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};

/// A child process. Its owner must call [`WorkerProcess::wait`] once, or the process stays a zombie.
#[derive(Debug)]
pub struct WorkerProcess {
    pid: u32,
    pidfd: OwnedFd,
    reaped: bool,
}

impl WorkerProcess {
    /// The process of a pidfd, a child of the caller that nothing else waits for.
    pub(super) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self {
            pid,
            pidfd,
            reaped: false,
        }
    }

    /// Its number in the caller's PID namespace.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Kills the process (SIGKILL). Succeeds if it has ended already.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended and returns its exit code, `None` if a signal ended it or if it was waited
    /// for already.
    pub fn wait(&mut self) -> io::Result<Option<i32>> {
        if self.reaped {
            return Ok(None);
        }
        let status = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                status => break status?,
            }
        };
        self.reaped = true;
        Ok(status.as_ref().and_then(WaitIdStatus::exit_status))
    }
}

/// Readable once the process has ended.
impl AsFd for WorkerProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A process that the standard library started, which must not be waited for in another way.
impl TryFrom<Child> for WorkerProcess {
    type Error = io::Error;

    fn try_from(child: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self::new(child.id(), pidfd))
    }
}
