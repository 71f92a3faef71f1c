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
mod tenants;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases share a server, and count what is left on the host.
    arguments.test_threads = Some(1);
    let trials = [
        images::cases(),
        clients::cases(),
        programs::cases(),
        escapes::cases(),
        root::cases(),
        neighbours::cases(),
        tenants::cases(),
        network::cases(),
        vec![case::case(
            "host::left_behind",
            "processes, TAPs, firewall rules and files of ended VMs stay on the host",
            || {
                network::take_from_host();
                case::stop_shared();
            },
        )],
        devices::cases(),
        host_changes::cases(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    conclusion.exit_code()
}
