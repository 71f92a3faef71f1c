//! `cloude-vmm`: one process, one micro-VM.

use std::error::Error;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use clap::Parser;
use cloude_vmm::control::{CONTROL_FD, Channel, Event, ExitReason};
use cloude_vmm::jail::Walls;
use cloude_vmm::{jail, panics, worker};

mod cli;

fn main() -> ExitCode {
    panics::end_process();
    // Before clap, which would cost every worker the memory of a command line parser.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "worker") {
        let walls = args.next().unwrap_or_default();
        if args.next().is_none() {
            return run_worker(&walls.to_string_lossy());
        }
    }
    match cli::Cli::parse().command {
        cli::Command::Run(args) => cli::run::main(args),
        cli::Command::Probe(args) => cli::probe::main(&args),
        cli::Command::Cpuid(args) => cli::cpuid::main(&args),
        cli::Command::Worker { walls } => run_worker(&walls),
    }
}

/// `walls` is the text of the [`Walls`] that `clouded` asks for.
fn run_worker(walls: &str) -> ExitCode {
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
    match confined_worker(socket, walls) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloude-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reports panics to the host, locks the process up, and serves a VM.
fn confined_worker(socket: OwnedFd, walls: &str) -> Result<ExitReason, Box<dyn Error>> {
    panics::report_to(Channel::new(socket.try_clone()?));
    let channel = Channel::new(socket);
    let entered = walls
        .parse::<Walls>()
        .map_err(Box::<dyn Error>::from)
        .and_then(|walls| Ok(jail::enter(walls, channel.as_fd())?));
    match entered {
        Ok(pagemap) => Ok(worker::run(channel, pagemap)?),
        Err(error) => {
            let message = error.to_string();
            let _ = channel.send(&Event::Failed { message }, &[]);
            Err(error)
        }
    }
}
