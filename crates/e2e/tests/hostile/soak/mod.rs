//! `--soak SECONDS`: the attacks and ordinary programs at the same time, on one server. The resources that it holds must not
//! grow.

mod gauge;
mod plot;

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

/// Runs the cases in turn, beside ordinary programs, until the time is over and each case ran at least twice. Writes the
/// samples to `folder`, and panics if a case or an ordinary program fails, or if the server holds more at the end than after
/// the first round. That round makes what the server keeps: templates, caches, the bridge.
pub fn run(cases: &[Case], time: Duration, folder: &Path) {
    // The threads inherit the network namespace, which the server is in.
    host::isolate();
    let backend = shared();
    let start = Instant::now();
    let mut mix = Mix {
        backend: &backend,
        start,
        samples: Vec::new(),
        ordinary: AtomicUsize::new(0),
        attacks: AtomicUsize::new(0),
    };
    mix.run(cases, Duration::ZERO);
    let before = settled(&backend);
    println!("after the first round: {before}");
    mix.run(cases, time);
    let after = settled(&backend);
    println!(
        "{:.0} s: {} ordinary programs and {} attacks, all as expected",
        start.elapsed().as_secs_f64(),
        mix.ordinary.into_inner(),
        mix.attacks.into_inner(),
    );
    println!("at the end: {after}");
    plot::write(&mix.samples, folder);
    drop(backend);
    stop_shared();
    after.assert_no_more_than(&before, MEMORY_GROWTH_MIB);
}

/// Attacks and ordinary programs at the same time.
struct Mix<'a> {
    backend: &'a Backend,
    start: Instant,
    /// Each with the seconds since the start.
    samples: Vec<(f64, Gauges)>,
    ordinary: AtomicUsize,
    attacks: AtomicUsize,
}

impl Mix<'_> {
    /// Runs whole rounds of the cases until `time` after the start, at least one.
    fn run(&mut self, cases: &[Case], time: Duration) {
        let stop = AtomicBool::new(false);
        let Mix {
            backend,
            start,
            samples,
            ordinary,
            attacks,
        } = self;
        let (backend, start, stop) = (*backend, *start, &stop);
        let (ordinary, attacks) = (&*ordinary, &*attacks);
        std::thread::scope(|scope| {
            for thread in 0..ORDINARY {
                scope.spawn(move || ordinary_programs(backend, stop, ordinary, thread));
            }
            let attacker = scope.spawn(move || {
                // Also when a case fails, so that the other threads end.
                let _stop = SetOnDrop(stop);
                loop {
                    for case in cases {
                        (case.run)();
                        attacks.fetch_add(1, Ordering::Relaxed);
                    }
                    if start.elapsed() >= time {
                        return;
                    }
                }
            });
            while !attacker.is_finished() {
                samples.push((start.elapsed().as_secs_f64(), Gauges::read(backend.id())));
                std::thread::sleep(PERIOD);
            }
        });
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
