//! The cost of a fork on the host: private memory, VM exits and page faults.

use std::time::Duration;

use cloude_e2e::backend::Backend;
use cloude_e2e::host;
use cloude_protocol::api::StartKind;

use crate::hello::{self, Client, Hello};
use crate::memory::{self, Worker};
use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// Measures the private memory of a paused fork, and the counters of a fork that executed a hello.
pub fn measure(report: &mut Report, backend: &Backend, hello: &Hello) {
    std::thread::sleep(Duration::from_secs(5));
    let paused = Samples(
        memory::workers(backend.id())
            .iter()
            .filter_map(Worker::private_mib)
            .collect(),
    );
    memory_row(
        report,
        "a paused fork's private memory",
        1.0,
        ("paused", &paused),
    );

    let lingering = format!("{}\nimport time\ntime.sleep(3)", hello.code);
    let lingering = hello::request(hello.language, &lingering);
    let mut used = Vec::new();
    for _ in 0..report.runs {
        std::thread::sleep(Duration::from_secs(1));
        let before = memory::workers(backend.id());
        let waited: Vec<_> = before.iter().map(Counts::of).collect();
        let counts = std::thread::scope(|scope| {
            let execution = scope.spawn(|| Client::new(backend).run(&lingering));
            std::thread::sleep(Duration::from_millis(1500));
            let measured: Vec<_> = before.iter().map(Counts::of).collect();
            let (execution, _) = execution.join().unwrap();
            assert_eq!(execution.start, StartKind::Pool, "{execution:?}");
            // Only the fork that ran ends; the others stay paused in the pool.
            let ended = host::wait_for("the fork that ran is gone", || {
                before.iter().position(Worker::has_ended)
            });
            measured[ended].since(&waited[ended])
        });
        used.push(counts);
    }
    used_rows(report, &used);
}

/// Adds a row in MiB with the threshold `at_most`.
fn memory_row(report: &mut Report, name: &str, at_most: f64, samples: (&str, &Samples)) {
    let (label, samples) = samples;
    let median = samples.median();
    let row = Row::new(name, format!("{median:.2} MiB"), median);
    report.push(
        row.promised(Threshold::AtMost(at_most))
            .samples(label, samples),
    );
}

/// Memory and counters of one fork; NaN where the host does not provide one.
#[derive(Clone, Copy)]
struct Counts {
    private_mib: f64,
    exits: f64,
    mapped: f64,
    halts: f64,
    mmio: f64,
    /// Minor page faults of the vCPU's thread.
    faults: f64,
    /// Minor page faults of the worker's other threads: mostly pages that MADV_POPULATE_WRITE copies at the resume.
    copied: f64,
}

impl Counts {
    fn of(worker: &Worker) -> Self {
        let (faults, copied) = worker.minor_faults().unwrap_or((f64::NAN, f64::NAN));
        let counted = |name: &str| worker.counted(name).unwrap_or(f64::NAN);
        Counts {
            private_mib: worker.private_mib().unwrap_or(f64::NAN),
            exits: counted("exits"),
            mapped: counted("pf_fixed"),
            halts: counted("halt_exits"),
            mmio: counted("mmio_exits"),
            faults,
            copied,
        }
    }

    /// The increase of each counter since `before`, with the present private memory.
    fn since(self, before: &Counts) -> Self {
        Counts {
            private_mib: self.private_mib,
            exits: self.exits - before.exits,
            mapped: self.mapped - before.mapped,
            halts: self.halts - before.halts,
            mmio: self.mmio - before.mmio,
            faults: self.faults - before.faults,
            copied: self.copied - before.copied,
        }
    }
}

fn used_rows(report: &mut Report, used: &[Counts]) {
    let samples = |of: fn(&Counts) -> f64| Samples(used.iter().map(of).collect());
    let private = samples(|counts| counts.private_mib);
    memory_row(
        report,
        "a fork's private memory after a hello",
        3.0,
        ("after a hello", &private),
    );
    // KVM's counters are in debugfs, which may not be mounted.
    if used.iter().any(|counts| counts.exits.is_nan()) {
        return;
    }
    let exits = samples(|counts| counts.exits);
    let (halts, mmio) = (
        samples(|counts| counts.halts),
        samples(|counts| counts.mmio),
    );
    let parts = format!(
        "{:.0} of them halts, {:.0} to devices",
        halts.median(),
        mmio.median()
    );
    let row = Row::new(
        "a fork's VM exits for a hello",
        format!("{:.0}", exits.median()),
        exits.median(),
    );
    report.push(
        row.against(parts)
            .promised(Threshold::AtMost(150.0))
            .samples("VM exits", &exits)
            .samples("halts", &halts)
            .samples("to devices", &mmio),
    );
    let faults = samples(|counts| counts.faults);
    let (mapped, copied) = (
        samples(|counts| counts.mapped),
        samples(|counts| counts.copied),
    );
    let parts = format!(
        "{:.0} pages mapped by KVM; {:.0} faults of other threads, which copy pages at the resume",
        mapped.median(),
        copied.median()
    );
    let row = Row::new(
        "page faults that a fork's vCPU waits for in a hello",
        format!("{:.0}", faults.median()),
        faults.median(),
    );
    report.push(
        row.against(parts)
            .promised(Threshold::AtMost(80.0))
            .samples("page faults", &faults)
            .samples("pages mapped", &mapped)
            .samples("faults of other threads", &copied),
    );
}
