//! The time from a blank VM, and from a paused fork, to the guest's first instructions, with one and four vCPUs.
//!
//! The guest is hand-made, so that any KVM runs it. A measurement ends when every vCPU has written a byte to the
//! serial port and the last byte has arrived through the console's pipe. Creating blank VMs and ending VMs is not
//! included, since no request waits for them.
//!
//! A table of percentiles is printed first; with CLOUDE_BENCH_TABLE_ONLY set only the table.

#![allow(clippy::unwrap_used)] // A benchmark fails by panicking.

use std::time::{Duration, Instant};

use cloude_vmm::snapshot::{CallCount, Template};
use cloude_vmm::vm::Vm;
use criterion::{Criterion, criterion_group};

#[path = "../tests/common/mod.rs"]
mod common;

use common::prover::{self, GuestOutput};

/// Forks per row of the table.
const ROUNDS: usize = 100;

fn benches(criterion: &mut Criterion) {
    for vcpus in [1, 4] {
        let template = prover::tight_template(vcpus);
        let mut group = criterion.benchmark_group(format!("{vcpus} vCPUs"));
        group.sample_size(20);
        group.bench_function("blank VM to first exit", |bencher| {
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
    /// From the blank VM to a paused fork.
    restore: Duration,
    /// From there to the last vCPU's first exit.
    run: Duration,
    /// Page faults of the process, in both.
    faults: [u64; 2],
    calls: CallCount,
}

impl Round {
    fn run(template: &Template) -> Self {
        let vcpus = template.vm_state().key.vcpus;
        let (blank, mut output) = prover::blank(vcpus);
        let faults = [minor_faults(), 0];
        let start = Instant::now();
        let (mut vm, calls) = blank.restore(template, &prover::origin()).unwrap();
        let restore = start.elapsed();
        let faults = [faults[0], minor_faults()];
        // Not measured: only this guest waits to be released.
        prover::go(&vm);
        let run = first_exits(&mut vm, &mut output, vcpus);
        let faults = [faults[1] - faults[0], minor_faults() - faults[1]];
        Self {
            restore,
            run,
            faults,
            calls,
        }
    }

    fn total(&self) -> Duration {
        self.restore + self.run
    }
}

fn first_exits(vm: &mut Vm, output: &mut GuestOutput, vcpus: u8) -> Duration {
    let start = Instant::now();
    vm.resume().unwrap();
    output.wait_for('g', vcpus);
    start.elapsed()
}

fn minor_faults() -> u64 {
    // SAFETY: all bytes zero are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `rusage` to where the pointer says.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64
}

/// Prints percentiles of both measurements, and the system calls and page faults of a restore.
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
    row("blank VM to first exit", Round::total);
    row("  of it, restoring", |round| round.restore);
    row("paused fork to first exit", |round| round.run);
    let last = &rounds[ROUNDS - 1];
    let CallCount { ioctls, memory } = last.calls;
    println!("a restore makes {ioctls} ioctls and {memory} system calls that map memory");
    let [restore, run] = last.faults;
    println!("minor faults: {restore} in the restore, {run} in the run");
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
    // No table under `cargo test` and `--list`.
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
