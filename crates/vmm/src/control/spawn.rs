//! Starts workers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{CONTROL_FD, Channel};

/// Starts `binary worker` and gives it with the host's end of its control socket.
///
/// The worker ends when the socket closes, however the caller ends: the kernel closes it. (The
/// "parent death" signal is no help here: it follows the thread that spawned, which in a program
/// with a pool of threads may end long before the program.) The worker's standard output is the
/// caller's standard error, and it has no input. The caller reaps the child.
pub fn spawn(binary: &Path) -> io::Result<(Child, Channel)> {
    let (host, worker) = Channel::pair()?;
    let worker = OwnedFd::from(worker);
    let stderr = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 0)?;
    let mut command = Command::new(binary);
    command
        .arg("worker")
        // Ctrl-C at the caller's terminal is the caller's to answer: it may let its VMs finish.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr));
    let from = worker.as_raw_fd();
    // SAFETY: between fork and exec the closure calls dup2 and fcntl alone, which are
    // async-signal-safe, and allocates nothing. `worker` is open until `spawn` below has returned.
    unsafe {
        command.pre_exec(move || {
            let result = if from == CONTROL_FD {
                // dup2 onto itself would leave close-on-exec set.
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
