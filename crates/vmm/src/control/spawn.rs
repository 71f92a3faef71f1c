//! Starts a worker process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{CONTROL_FD, Channel};

/// Starts `binary worker` and returns the process and the host's end of its control socket.
///
/// The worker ends when the socket closes, which the kernel does when the caller ends for any reason.
/// (PR_SET_PDEATHSIG would not do: it fires when the spawning thread ends, which may be earlier.) The worker's standard
/// output is the caller's standard error, and its standard input is /dev/null. The caller must reap the child.
pub fn spawn(binary: &Path) -> io::Result<(Child, Channel)> {
    let (host, worker) = Channel::pair()?;
    let worker = OwnedFd::from(worker);
    let stderr = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 0)?;
    let mut command = Command::new(binary);
    command
        .arg("worker")
        // Ctrl-C at the terminal must reach only the caller, which may let its VMs finish.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr));
    let from = worker.as_raw_fd();
    // SAFETY: between fork and exec the closure calls dup2 and fcntl alone, which are
    // async-signal-safe, and allocates nothing. `worker` is open until `spawn` below has returned.
    unsafe {
        command.pre_exec(move || {
            let result = if from == CONTROL_FD {
                // dup2 to the same number would keep close-on-exec.
                libc::fcntl(CONTROL_FD, libc::F_SETFD, 0)
            } else {
                libc::dup2(from, CONTROL_FD)
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    drop(worker);
    Ok((child, host))
}
