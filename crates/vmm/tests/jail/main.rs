//! A worker that misbehaves, one case each: with its filter it dies and the host learns the system call; without the
//! filter the other walls refuse.
//!
//! This binary is also that worker: [`control::spawn`] runs it as `BINARY worker WALLS`.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod acts;
mod outside;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use cloude_vmm::control::{
    self, CONTROL_FD, Channel, ChannelError, Event, ExitReason, ExitReport, SpawnOptions,
    WorkerProcess,
};
use cloude_vmm::jail::{self, FORBIDDEN_EXIT_CODE, Wall, Walls};
use libtest_mimic::{Arguments, Failed, Trial};

use acts::Act;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        misbehave();
        return;
    }
    let mut trials: Vec<Trial> = acts::FORBIDDEN.iter().map(forbidden).collect();
    trials.extend(acts::REFUSED.iter().map(refused));
    trials.extend(outside::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Enters the jail, does what the host asks for, and tells how it went.
fn misbehave() {
    let walls: Walls = std::env::args().nth(2).unwrap().parse().unwrap();
    // SAFETY: the host passed the descriptor, and nothing else owns it.
    let channel = Channel::new(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) });
    let _pagemap = jail::enter(walls, channel.as_fd()).unwrap();
    // Until the host hangs up.
    while let Ok((name, _)) = channel.recv::<(String, i32)>() {
        let outcome = acts::by_name(&name.0).run(name.1);
        channel.send(&outcome, &[]).unwrap();
    }
}

/// A jailed worker of this binary.
pub struct Jailed {
    pub process: WorkerProcess,
    pub channel: Channel,
}

impl Jailed {
    pub fn start(walls: &[Wall]) -> Self {
        let options = SpawnOptions {
            walls: walls.iter().copied().collect(),
            ..SpawnOptions::default()
        };
        let binary = std::env::current_exe().unwrap();
        let (process, channel) = control::spawn(&binary, &options).unwrap();
        Self { process, channel }
    }

    /// Asks for an act. It may need the number of this process.
    pub fn ask(&self, act: &Act) {
        let request = (act.name, std::process::id() as i32);
        self.channel.send(&request, &[]).unwrap();
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All walls that a process can set up without root.
pub const WALLS: [Wall; 4] = [Wall::Namespaces, Wall::Root, Wall::Landlock, Wall::Seccomp];

/// The process dies at the act, and the host learns its system call, or that the kernel killed it.
fn forbidden(act: &'static Act) -> Trial {
    let test = move || {
        let mut worker = Jailed::start(&WALLS);
        worker.ask(act);
        match (act.syscall, worker.channel.recv::<Event>()) {
            (Some(number), Ok((Event::Exited(ExitReport { reason, .. }), _))) => {
                let expected = ExitReason::ForbiddenSyscall {
                    number: number as i32,
                };
                assert_eq!(reason, expected);
                assert!(reason.to_string().contains(jail::syscall_name(number)));
                let code = worker.process.wait().unwrap();
                assert_eq!(code, Some(FORBIDDEN_EXIT_CODE.into()));
            }
            (None, Err(ChannelError::Closed)) => {
                let code = worker.process.wait().unwrap();
                assert_eq!(code, None, "no signal ended it");
            }
            // It answers: the act succeeded, or failed with an error.
            (_, survived) => return Err(Failed::from(format!("{survived:?}"))),
        }
        Ok(())
    };
    Trial::test(format!("{}_kills_the_worker", act.name), test)
}

/// A listener that an abstract Unix socket of this process's network namespace reaches.
fn listener() -> UnixListener {
    let name = acts::socket_name(std::process::id() as i32);
    let address = SocketAddr::from_abstract_name(name).unwrap();
    UnixListener::bind_addr(&address).unwrap()
}

/// Without the filter, the walls of the act refuse it with one of its errors.
fn refused((walls, act): &'static (&'static [Wall], Act)) -> Trial {
    let test = move || {
        let _listener = (act.name == acts::REACHES_A_SOCKET).then(listener);
        let worker = Jailed::start(walls);
        worker.ask(act);
        let (outcome, _) = worker.channel.recv::<i32>().unwrap();
        assert!(
            act.errors.contains(&outcome),
            "{} gave {}",
            act.name,
            std::io::Error::from_raw_os_error(outcome)
        );
        Ok(())
    };
    let by = match walls {
        [] => "every_jail".to_owned(),
        walls => {
            let names: Vec<_> = walls.iter().map(|wall| wall.name()).collect();
            names.join("_and_")
        }
    };
    Trial::test(format!("{}_is_refused_by_{by}", act.name), test)
}
