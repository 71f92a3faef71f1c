//! The image's shell on the console, for a VM that is booted by hand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloude_protocol::boot::ImageConfig;
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, wait};

use super::power;
use crate::execute::command;
use crate::user::User;

/// In order of preference.
const SHELLS: [&str; 3] = ["/bin/bash", "/bin/sh", "/bin/busybox"];

/// Runs the shell as the image's user, reaps until it ends, and powers off.
pub fn run(image: &ImageConfig) -> Result<Infallible, String> {
    let user = User::look_up(&image.user, Path::new("/")).map_err(|error| error.to_string())?;
    let shell = SHELLS
        .iter()
        .find(|shell| Path::new(shell).exists())
        .ok_or_else(|| format!("the image has no shell: none of {}", SHELLS.join(", ")))?;
    let terminal = terminal();
    let open = || OpenOptions::new().read(true).write(true).open(&terminal);
    let console = open().map_err(|error| format!("{}: {error}", terminal.display()))?;
    // The user's programs can then open the terminal by name.
    let _ = std::os::unix::fs::chown(&terminal, Some(user.uid), None);
    let clone = || console.try_clone().map_err(|error| error.to_string());
    let mut command = Command::new(shell);
    if shell.ends_with("busybox") {
        command.arg("sh");
    }
    let mut variables = command::environment(image, &user, &BTreeMap::new());
    variables
        .entry("TERM".to_owned())
        .or_insert_with(|| "linux".to_owned());
    command
        .env_clear()
        .envs(variables)
        .stdin(clone()?)
        .stdout(clone()?)
        .stderr(clone()?);
    let directory = if image.working_dir.is_empty() {
        "/"
    } else {
        &image.working_dir
    };
    command.current_dir(if Path::new(directory).is_dir() {
        directory
    } else {
        "/"
    });
    become_user(&mut command, user, console.as_raw_fd());
    let child = command
        .spawn()
        .map_err(|error| format!("{shell}: {error}"))?;
    reap_until(child.id() as i32);
    power::off()
}

fn become_user(command: &mut Command, user: User, console: i32) {
    let before_exec = move || {
        // SAFETY: system calls that do not allocate; `user` was allocated before the fork. The new session gets
        // the console as its controlling terminal, so that Ctrl-C sends SIGINT.
        let done = unsafe {
            libc::setsid();
            libc::ioctl(console, libc::TIOCSCTTY as _, 1);
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::setgroups(user.groups.len(), user.groups.as_ptr()) == 0
                && libc::setgid(user.gid) == 0
                && libc::setuid(user.uid) == 0
        };
        if done {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(before_exec) };
}

/// The terminal behind /dev/console, which itself cannot be a controlling terminal.
fn terminal() -> PathBuf {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    active
        .split_ascii_whitespace()
        .last()
        .map(|name| Path::new("/dev").join(name))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/dev/console"))
}

fn reap_until(shell: i32) {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))
                if pid.as_raw() == shell =>
            {
                return;
            }
            Err(Errno::ECHILD) => return,
            Ok(_) | Err(_) => {}
        }
    }
}
