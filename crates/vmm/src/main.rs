//! `cloude-vmm`: one process, one micro-VM.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;

use clap::Parser;
use cloude_vmm::control::{CONTROL_FD, Channel};
use cloude_vmm::{panics, worker};
use rustix::process::{Resource, Rlimit, setrlimit};

mod cli;

fn main() -> ExitCode {
    panics::end_process();
    // A worker has one way to be called, and no use for a command line parser's memory.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "worker") && args.next().is_none() {
        return run_worker();
    }
    match cli::Cli::parse().command {
        cli::Command::Run(args) => cli::run::main(args),
        cli::Command::Probe(args) => cli::probe::main(&args),
        cli::Command::Cpuid(args) => cli::cpuid::main(&args),
        cli::Command::Worker => run_worker(),
    }
}

fn run_worker() -> ExitCode {
    // SAFETY: fcntl with F_GETFD only asks; whoever starts a worker gives it the descriptor, and
    // nothing in this process has taken it yet.
    let socket = unsafe {
        if libc::fcntl(CONTROL_FD, libc::F_GETFD) < 0 {
            None
        } else {
            libc::fcntl(CONTROL_FD, libc::F_SETFD, libc::FD_CLOEXEC);
            Some(OwnedFd::from_raw_fd(CONTROL_FD))
        }
    };
    let Some(socket) = socket else {
        eprintln!(
            "cloude-vmm: a worker is started by clouded with a control socket as descriptor \
             {CONTROL_FD}; to boot a VM by hand use `cloude-vmm run`"
        );
        return ExitCode::from(2);
    };
    if let Err(error) = contain_crashes(&socket) {
        eprintln!("cloude-vmm: the worker cannot be set up: {error}");
        return ExitCode::FAILURE;
    }
    match worker::run(Channel::new(socket)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloude-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A panic is reported to the host, and no crash leaves a core file with what the guest had in memory.
fn contain_crashes(socket: &OwnedFd) -> io::Result<()> {
    panics::report_to(Channel::new(socket.try_clone()?));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}
