//! How long a fork takes to run: from a shell, and from a fork that waits, with one and four vCPUs.
//!
//! The guest is hand-made, so that any KVM runs it. What is measured ends when every vCPU has run its first
//! instructions and left the guest: each writes a byte to the serial port, and the last byte has come
//! through the console's pipe. Making shells and ending VMs is not on a request's path, and not in it.
//!
//! First comes a table of percentiles and of the steps; with CLOUDE_BENCH_TABLE_ONLY set nothing else.

#![allow(clippy::unwrap_used)] // A benchmark fails by panicking.

use std::time::{Duration, Instant};

use cloude_vmm::snapshot::{Template, Trace};
use cloude_vmm::vm::Vm;
use criterion::{Criterion, criterion_group};

#[path = "../tests/common/mod.rs"]
mod common;

use common::prover::{self, Said};

/// Forks for the table of steps, for each shape.
const ROUNDS: usize = 100;

fn benches(criterion: &mut Criterion) {
    for vcpus in [1, 4] {
        let template = prover::tight_template(vcpus);
        let mut group = criterion.benchmark_group(format!("{vcpus} vCPUs"));
        group.sample_size(20);
        group.bench_function("shell to first exit", |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| Round::run(&template).total()).sum());
        });
        group.bench_function("paused fork to first exit", |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| Round::run(&template).run).sum());
        });
        group.finish();
    }
}

/// One fork.
struct Round {
    /// From the shell to a paused fork.
    take: Duration,
    /// From there to the last vCPU's first exit.
    run: Duration,
    /// Page faults of the process, in both.
    faults: [u64; 2],
    trace: Trace,
}

impl Round {
    fn run(template: &Template) -> Self {
        let vcpus = template.record().key.vcpus;
        let (shell, mut said) = prover::shell(vcpus);
        let faults = [minor_faults(), 0];
        let start = Instant::now();
        let (mut vm, trace) = shell.take(template, &prover::origin()).unwrap();
        let take = start.elapsed();
        let faults = [faults[0], minor_faults()];
        // Not part of either: a fork runs on by itself, and this guest has to be told.
        prover::go(&vm);
        let run = first_exits(&mut vm, &mut said, vcpus);
        let faults = [faults[1] - faults[0], minor_faults() - faults[1]];
        Self {
            take,
            run,
            faults,
            trace,
        }
    }

    fn total(&self) -> Duration {
        self.take + self.run
    }
}

fn first_exits(vm: &mut Vm, said: &mut Said, vcpus: u8) -> Duration {
    let start = Instant::now();
    vm.resume().unwrap();
    said.wait_for('g', vcpus);
    start.elapsed()
}

fn minor_faults() -> u64 {
    // SAFETY: all bytes zero are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `rusage` to where the pointer says.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64
}

/// Percentiles of both ways, and what each step of taking a template costs in the median.
fn table(vcpus: u8) {
    let template = prover::tight_template(vcpus);
    let rounds: Vec<Round> = (0..ROUNDS).map(|_| Round::run(&template)).collect();
    println!("\n{vcpus} vCPUs, {ROUNDS} forks; times in microseconds");
    println!("{:34} {:>8} {:>8} {:>8}", "", "p50", "p95", "p99");
    let row = |name: &str, time: fn(&Round) -> Duration| {
        let times = sorted(rounds.iter().map(time));
        let at = |percent: usize| micros(times[(times.len() * percent / 100).min(ROUNDS - 1)]);
        let (p50, p95, p99) = (at(50), at(95), at(99));
        println!("{name:34} {p50:8.1} {p95:8.1} {p99:8.1}");
    };
    row("shell to first exit", Round::total);
    row("  of it, taking the template", |round| round.take);
    row("paused fork to first exit", |round| round.run);
    println!(
        "\n{:34} {:>8} {:>8} {:>8}",
        "step", "p50", "ioctls", "other"
    );
    let last = &rounds[ROUNDS - 1];
    for (index, step) in last.trace.steps().iter().enumerate() {
        let times = sorted(rounds.iter().map(|r| r.trace.steps()[index].time));
        let p50 = micros(times[ROUNDS / 2]);
        println!(
            "{:34} {p50:8.1} {:8} {:8}",
            step.name, step.ioctls, step.syscalls
        );
    }
    let (ioctls, syscalls) = (last.trace.ioctls(), last.trace.syscalls());
    println!("{:34} {:>8} {ioctls:8} {syscalls:8}", "all", "");
    let [take, run] = last.faults;
    println!("minor faults: {take} while taking the template, {run} while running");
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

criterion_group!(group, benches);

fn main() {
    // As a test, or to list what there is, the table is no help.
    let plain = std::env::args().any(|arg| arg == "--bench");
    if plain {
        table(1);
        table(4);
    }
    if std::env::var_os("CLOUDE_BENCH_TABLE_ONLY").is_none() {
        group();
        Criterion::default().configure_from_args().final_summary();
    }
}
