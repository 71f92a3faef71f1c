//! Forks of a Linux guest. On a host whose KVM boots no Linux these tests print a message and do nothing.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::time::{Duration, Instant};

use common::linux::{Files, Fork, Snapshot};

/// Sleeps on every CPU, for which Linux uses the LAPIC timer, and checks that the monotonic clock never goes back.
const CLOCKS: &str = "
import os, threading, time
def nap(cpu):
    os.sched_setaffinity(0, {cpu})
    start = time.monotonic()
    time.sleep(0.05)
    naps.append(0.05 <= time.monotonic() - start < 60)
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

/// Linux's message after a change of the VM generation ID (drivers/char/random.c).
const RESEEDED: &str = "crng reseeded due to virtual machine fork";

fn forks_answer(vcpus: u8) {
    let Some(files) = Files::find() else {
        return;
    };
    let since = Instant::now();
    let snapshot = Snapshot::make(&files, vcpus);
    eprintln!("booted and saved in {:?}", since.elapsed());
    // All at the same time, so that none can depend on another's end.
    let mut forks: Vec<Fork> = (0..3).map(|_| snapshot.fork()).collect();
    for fork in &mut forks {
        let since = Instant::now();
        fork.resume();
        assert_eq!(fork.agent.health(), 200);
        eprintln!("answered in {:?}", since.elapsed());
    }
    // A guest with lost timers would answer as long as it never waits.
    std::thread::sleep(Duration::from_secs(2));
    for fork in &mut forks {
        assert_eq!(fork.agent.health(), 200);
        assert_eq!(fork.agent.python(CLOCKS), format!("{vcpus} True 0\n"));
    }
    for fork in forks {
        let output = fork.end();
        assert!(output.contains(RESEEDED), "{output}");
    }
}

/// Prints the times of the first answers and of a program, with and without the working set of an earlier fork.
fn forks_with_a_working_set(vcpus: u8) {
    let Some(files) = Files::find() else {
        return;
    };
    let snapshot = Snapshot::make(&files, vcpus);
    let mut first = snapshot.fork();
    first.resume();
    assert_eq!(first.agent.health(), 200);
    let (answered, list) = first.working_set();
    assert_eq!(first.agent.python("print(1)"), "1\n");
    let (written, _) = first.working_set();
    assert!(0 < answered && answered < written);
    drop(first);
    eprintln!("{vcpus} vCPUs: {answered} pages written for an answer, {written} with a program");
    for round in 0..5 {
        for list in [None, Some(&list)] {
            let mut fork = snapshot.fork_with(list);
            let since = Instant::now();
            fork.resume();
            assert_eq!(fork.agent.health(), 200);
            let answer = since.elapsed();
            assert_eq!(fork.agent.python("print(1)"), "1\n");
            let with = if list.is_some() { "with" } else { "without" };
            let program = since.elapsed();
            eprintln!("{round} {with} pages: answer {answer:?}, program {program:?}");
        }
    }
}

#[test]
fn forks_of_one_vcpu_answer_with_a_working_set() {
    forks_with_a_working_set(1);
}

#[test]
fn forks_of_four_vcpus_answer_with_a_working_set() {
    forks_with_a_working_set(4);
}

#[test]
fn forks_of_one_vcpu_answer_on_the_saved_connection() {
    forks_answer(1);
}

#[test]
fn forks_of_four_vcpus_answer_on_the_saved_connection() {
    forks_answer(4);
}
