//! What a VM costs its host beside its own memory, and whether an idle one sleeps.

use std::collections::BTreeMap;
use std::time::Duration;

use cloude_e2e::{binaries, host};

use crate::boot::{Guest, Qemu, boot};
use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// From the agent's line until the guest has nothing left to do.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(5);
/// What `cloude-vmm` names the guest's memory.
const GUEST_MEMORY: &str = "guest-memory";

pub fn measure(report: &mut Report) {
    host::isolate();
    let guest = Guest::new(binaries::kernel(), None);
    let (mut resident, mut private) = (Samples::default(), Samples::default());
    let (mut ours, mut vcpus, mut theirs) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..report.runs {
        let (booted, _) = boot(guest.cloude_vmm());
        std::thread::sleep(SETTLE);
        let (rss, own) = beside_the_guest(booted.id());
        resident.0.push(rss as f64 / f64::from(1 << 20));
        private.0.push(own as f64 / f64::from(1 << 20));
        let (vcpu, other) = wake_ups(booted.id(), |name| name.starts_with("vcpu"));
        vcpus.0.push(vcpu);
        ours.0.push(other);
    }
    // One QEMU, to know what of the vCPU's is the guest's own timer.
    let (booted, _) = boot(guest.qemu(&Qemu::new()));
    std::thread::sleep(SETTLE);
    theirs
        .0
        .push(wake_ups(booted.id(), |name| name.starts_with("CPU")).0);

    let row = Row::new(
        "cloude-vmm's memory beside the guest's",
        format!("{:.2} MiB resident", resident.median()),
        resident.median(),
    );
    let row = row.against(format!("{:.2} MiB of them private", private.median()));
    report.push(
        row.promised(Threshold::AtMost(5.0))
            .samples("resident", &resident)
            .samples("private", &private),
    );
    let row = Row::new(
        "idle: wake-ups a second of cloude-vmm's own threads",
        format!("{:.1}", ours.median()),
        ours.median(),
    );
    report.push(row.promised(Threshold::AtMost(0.0)).samples("own", &ours));
    let row = Row::new(
        "idle: wake-ups a second of the vCPU, by the guest's timers",
        format!("{:.1}", vcpus.median()),
        vcpus.median(),
    );
    report.push(
        row.against(format!("{:.1} under QEMU", theirs.median()))
            .samples("vcpu", &vcpus)
            .samples("qemu", &theirs),
    );
}

/// Resident and private bytes of all mappings but the guest's memory (proc(5), smaps).
fn beside_the_guest(id: u32) -> (u64, u64) {
    let smaps = std::fs::read_to_string(format!("/proc/{id}/smaps")).unwrap();
    let (mut resident, mut private, mut guest, mut guests) = (0, 0, false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        if !key.ends_with(':') {
            guest = line.contains(GUEST_MEMORY);
            guests += u32::from(guest);
            continue;
        }
        let bytes = words
            .next()
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024;
        match key {
            "Rss:" if !guest => resident += bytes,
            "Private_Clean:" | "Private_Dirty:" if !guest => private += bytes,
            _ => {}
        }
    }
    assert!(guests > 0, "no mapping is called {GUEST_MEMORY}");
    (resident, private)
}

/// How often a second threads went to sleep over some time, which is how often they woke: of those
/// that are vCPUs, and of all others.
fn wake_ups(id: u32, is_vcpu: impl Fn(&str) -> bool) -> (f64, f64) {
    let before = switches(id);
    std::thread::sleep(IDLE);
    let (mut vcpus, mut others) = (0, 0);
    for (thread, (name, count)) in switches(id) {
        let more = count - before.get(&thread).map_or(0, |(_, count)| *count);
        if is_vcpu(&name) {
            vcpus += more
        } else {
            others += more
        }
    }
    (
        vcpus as f64 / IDLE.as_secs_f64(),
        others as f64 / IDLE.as_secs_f64(),
    )
}

fn switches(id: u32) -> BTreeMap<String, (String, u64)> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task"))
        .unwrap()
        .flatten();
    threads
        .map(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
            let field = |name: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap()
                    .trim()
                    .to_owned()
            };
            let count = field("voluntary_ctxt_switches:").parse().unwrap();
            (
                thread.file_name().to_string_lossy().into_owned(),
                (field("Name:"), count),
            )
        })
        .collect()
}
