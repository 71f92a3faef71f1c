//! Measures what the project promises: `make bench`. docs/benchmarks.md says how.
#![allow(
    clippy::unwrap_used,
    reason = "a harness: a failure ends it, with its place"
)]

mod bare;
mod boot;
mod cost;
mod footprint;
mod forks;
mod hello;
mod image;
mod latency;
mod many;
mod memory;
mod plot;
mod report;
mod sample;
mod sustained;
mod waiting;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use report::Report;

#[derive(Parser)]
#[command(about = "Measures what the project promises")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What needs VMs: run it inside tools/with-kvm
    Vm(Part),
    /// What needs none: images from a registry on loopback
    Image(Part),
    /// Write an image of so many files: what `image` does in a process of its own
    #[command(hide = true)]
    Layout {
        folder: PathBuf,
        name: String,
        files: usize,
    },
    /// Join the results of the parts, print the table; exits with 1 if a threshold is missed
    Report {
        /// The parts' files
        #[arg(required = true)]
        parts: Vec<PathBuf>,
        /// Where the whole goes, as JSON
        #[arg(long)]
        json: PathBuf,
        /// Where the plots go
        #[arg(long)]
        plots: Option<PathBuf>,
        /// What was measured, for the plots
        #[arg(long, default_value = "")]
        commit: String,
    },
}

#[derive(clap::Args)]
struct Part {
    /// How often each thing is measured; medians are reported
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Only these sections
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the result goes
    #[arg(long)]
    json: PathBuf,
}

impl Part {
    fn wants(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == section)
    }
}

fn main() -> std::process::ExitCode {
    match Cli::parse().command {
        Command::Vm(part) => {
            cloude_e2e::binaries::require_kvm();
            let mut report = Report::new("vm", part.runs);
            if part.wants("boot") {
                boot::measure(&mut report);
            }
            if part.wants("footprint") {
                footprint::measure(&mut report);
            }
            if part.wants("many") {
                many::measure(&mut report);
            }
            if part.wants("forks") {
                forks::measure(&mut report);
            }
            report.write(&part.json);
        }
        Command::Image(part) => {
            let mut report = Report::new("image", part.runs);
            image::measure(&mut report);
            report.write(&part.json);
        }
        Command::Layout {
            folder,
            name,
            files,
        } => image::write(&folder, &name, files),
        Command::Report {
            parts,
            json,
            plots,
            commit,
        } => {
            let reports = report::read(&parts);
            if let (Some(folder), Some(first)) = (plots, reports.first()) {
                let caption = format!("{}, commit {commit}", report::machine(first));
                plot::write(&reports, &folder, &caption);
            }
            return report::join(&reports, &json);
        }
    }
    std::process::ExitCode::SUCCESS
}
