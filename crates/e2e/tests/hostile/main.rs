//! Attacks on a server, each beside the damage that it does to a naive build. `make test-hostile` prints a line for
//! each.
//!
//! Most cases share one `clouded`, as tenants do. Each checks its own outcome, and afterwards that the server still runs
//! an ordinary program. The cases after `host::left_behind` have VMs, servers and a network namespace of their own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod case;
mod clients;
mod devices;
mod escapes;
mod host_changes;
mod images;
mod neighbours;
mod network;
mod programs;
mod root;
mod soak;
mod tenants;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use crate::case::Case;

/// The cases that share the server.
fn on_the_shared_server() -> Vec<Case> {
    let groups = [
        images::cases(),
        clients::cases(),
        programs::cases(),
        escapes::cases(),
        root::cases(),
        neighbours::cases(),
        tenants::cases(),
        network::cases(),
    ];
    groups.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let soak: Vec<String> = std::env::args().skip_while(|it| it != "--soak").collect();
    if let [_, seconds, folder] = &soak[..] {
        let seconds = seconds.parse().expect("--soak SECONDS FOLDER");
        soak::run(
            &on_the_shared_server(),
            Duration::from_secs(seconds),
            Path::new(folder),
        );
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // The cases share a server, and count what is left on the host.
    arguments.test_threads = Some(1);
    let left_behind = case::case(
        "host::left_behind",
        "processes, TAPs, firewall rules and files of ended VMs stay on the host",
        || {
            network::take_from_host();
            case::stop_shared();
        },
    );
    let trials = on_the_shared_server()
        .into_iter()
        .chain([left_behind])
        .chain(devices::cases())
        .chain(host_changes::cases())
        .map(Trial::from)
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_code()
}
