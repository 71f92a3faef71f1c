//! The benchmark behind `make bench`; docs/benchmarks.md describes the measurements and thresholds.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark: a panic names the line that failed"
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
mod walls;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use report::Report;

#[derive(Parser)]
#[command(about = "Measures performance against the thresholds of docs/benchmarks.md")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure VMs; run it inside tools/with-kvm
    Vm(Part),
    /// Measure image builds from a registry on loopback; needs no VM
    Image(Part),
    /// Write an OCI layout with this many files; `image` runs it as a child process
    #[command(hide = true)]
    Layout {
        folder: PathBuf,
        name: String,
        files: usize,
    },
    /// Join the results of the parts and print the table; exits with 1 if a threshold is missed
    Report {
        /// JSON files that `vm` and `image` wrote
        #[arg(required = true)]
        parts: Vec<PathBuf>,
        /// Output file: all results as JSON
        #[arg(long)]
        json: PathBuf,
        /// Output folder of the plots
        #[arg(long)]
        plots: Option<PathBuf>,
        /// The measured commit, for the captions of the plots
        #[arg(long, default_value = "")]
        commit: String,
    },
}

#[derive(clap::Args)]
struct Part {
    /// Samples of each measurement; the table has the medians
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Measure only these sections: boot, footprint, many, forks, walls
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Output file: the results as JSON
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
            if part.wants("walls") {
                walls::measure(&mut report);
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
