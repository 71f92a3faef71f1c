//! `--soak SECONDS`: the attacks and ordinary programs at the same time, on one server. What the server holds must not
//! grow.

mod gauge;
mod plot;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude::LONGEST;
use cloude_e2e::{cloude, host};
use cloude_protocol::agent::Cause;

use crate::case::{Case, shared, stop_shared};
use gauge::Gauges;

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(5);
/// Threads that run ordinary programs. The attacks have one more.
const ORDINARY: usize = 2;
/// Growth of the server's memory over the run that is accepted: allocators keep some of what was freed.
const MEMORY_GROWTH_MIB: f64 = 32.0;

/// Runs the cases in turn, beside ordinary programs, until the time is over and each case ran once. Writes the samples to
/// `folder`, and panics if a case or an ordinary program fails, or if something grew.
pub fn run(cases: &[Case], time: Duration, folder: &Path) {
    // The threads inherit the network namespace, which the server is in.
    host::isolate();
    let backend = shared();
    // The first round makes what the server keeps: templates, caches, the bridge.
    for case in cases {
        (case.run)();
    }
    let before = settled(&backend);
    println!("after the first round: {before}");
    let start = Instant::now();
    let stop = AtomicBool::new(false);
    let ordinary = AtomicUsize::new(0);
    let attacks = AtomicUsize::new(0);
    let samples = std::thread::scope(|scope| {
        let (backend, stop, ordinary) = (&*backend, &stop, &ordinary);
        let load: Vec<_> = (0..ORDINARY)
            .map(|thread| scope.spawn(move || ordinary_programs(backend, stop, ordinary, thread)))
            .collect();
        let attacker = scope.spawn(|| {
            for case in cases.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let ended = catch_unwind(AssertUnwindSafe(|| (case.run)()));
                assert!(ended.is_ok(), "{} fails beside other programs", case.name);
                attacks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut samples = Vec::new();
        while start.elapsed() < time
            && !attacker.is_finished()
            && !load.iter().any(|it| it.is_finished())
        {
            samples.push((start.elapsed().as_secs_f64(), Gauges::read(backend.id())));
            std::thread::sleep(PERIOD);
        }
        stop.store(true, Ordering::Relaxed);
        samples
    });
    let after = settled(&backend);
    let (ordinary, attacks) = (ordinary.into_inner(), attacks.into_inner());
    println!(
        "{:.0} s: {ordinary} ordinary programs and {attacks} attacks, all as expected",
        start.elapsed().as_secs_f64()
    );
    println!("at the end: {after}");
    plot::write(&samples, folder);
    drop(backend);
    stop_shared();
    after.assert_no_more_than(&before, MEMORY_GROWTH_MIB);
}

/// Runs programs until `stop`, and panics unless each prints what only it should print.
fn ordinary_programs(backend: &Backend, stop: &AtomicBool, count: &AtomicUsize, thread: usize) {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let word = format!("{thread}-{round}");
        let (language, code) = match round % 3 {
            0 => ("bash", format!("echo {word}")),
            1 => ("python", format!("print('{word}')")),
            _ => ("node", format!("console.log('{word}')")),
        };
        let arguments = [
            "run",
            "--json",
            "--timeout",
            LONGEST,
            "-l",
            language,
            "-c",
            &code,
        ];
        let execution = cloude::execution(&cloude::run(backend, &arguments));
        assert_eq!(
            (execution.cause, execution.stdout.to_text()),
            (Cause::Exit, format!("{word}\n")),
            "{execution:?}"
        );
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The gauges of the server once no execution runs and the pool is full: two equal readings, a period apart.
fn settled(backend: &Backend) -> Gauges {
    let mut last = Gauges::read(backend.id());
    host::wait_for("the server is idle and its pool is full", || {
        std::thread::sleep(PERIOD);
        let now = Gauges::read(backend.id());
        let equal = now.same_counts(&last);
        last = now;
        equal.then_some(now)
    })
}
