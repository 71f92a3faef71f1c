//! Forks of a Linux guest, where KVM boots one: on other hosts these tests say so and do nothing.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::time::{Duration, Instant};

use common::linux::{Files, Fork, Snapshot};

/// Sleeps on the clock that a LAPIC timer drives, on every CPU, and reads what may not go back.
const CLOCKS: &str = "
import os, threading, time
def nap(cpu):
    os.sched_setaffinity(0, {cpu})
    start = time.monotonic()
    time.sleep(0.05)
    naps.append(0.05 <= time.monotonic() - start < 5)
naps = []
cpus = sorted(os.sched_getaffinity(0))
threads = [threading.Thread(target=nap, args=(cpu,)) for cpu in cpus]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
last, back = 0, 0
for i in range(20000):
    if i % 100 == 0:
        os.sched_setaffinity(0, {cpus[i // 100 % len(cpus)]})
    now = time.monotonic_ns()
    back += now < last
    last = now
print(len(cpus), all(naps), back)
";

fn forks_go_on(vcpus: u8) {
    let Some(files) = Files::find() else {
        return;
    };
    let since = Instant::now();
    let snapshot = Snapshot::make(&files, vcpus);
    eprintln!("booted and saved in {:?}", since.elapsed());
    // All at once, so that none can live of what another left.
    let mut forks: Vec<Fork> = (0..3).map(|_| snapshot.fork()).collect();
    for fork in &mut forks {
        let since = Instant::now();
        fork.resume();
        assert_eq!(fork.agent.health(), 200);
        eprintln!("answered in {:?}", since.elapsed());
    }
    // A guest whose timers are lost answers as long as there is no waiting.
    std::thread::sleep(Duration::from_secs(2));
    for fork in &mut forks {
        assert_eq!(fork.agent.health(), 200);
        assert_eq!(fork.agent.python(CLOCKS), format!("{vcpus} True 0\n"));
    }
}

#[test]
fn forks_of_one_vcpu_answer_on_the_connection_that_was_saved() {
    forks_go_on(1);
}

#[test]
fn forks_of_four_vcpus_answer_on_the_connection_that_was_saved() {
    forks_go_on(4);
}
