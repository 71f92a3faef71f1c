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
    // Before clap, which would cost every worker the memory of a command line parser.
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
    // SAFETY: F_GETFD checks that the descriptor is open. The parent passed it to this process, and nothing else in the
    // process owns it.
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
            "cloude-vmm: descriptor {CONTROL_FD} is not a control socket: clouded starts workers; \
             to boot a VM by hand use `cloude-vmm run`"
        );
        return ExitCode::from(2);
    };
    if let Err(error) = contain_crashes(&socket) {
        eprintln!("cloude-vmm: cannot disable core dumps: {error}");
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

/// Reports a panic to the host, and sets RLIMIT_CORE to 0: a core file would contain guest memory.
fn contain_crashes(socket: &OwnedFd) -> io::Result<()> {
    panics::report_to(Channel::new(socket.try_clone()?));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}
