//! The overhead of a VM on its host: memory in addition to the guest's, and wake-ups of an idle VM.

use std::collections::BTreeMap;
use std::time::Duration;

use cloude_e2e::{binaries, host};

use crate::boot::{Guest, Qemu, boot};
use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// Time from the agent's line until the guest is idle: it sends IPv6 router solicitations for 8 s.
const SETTLE: Duration = Duration::from_secs(9);
const IDLE: Duration = Duration::from_secs(8);
/// QEMU VMs to measure. They show how many vCPU wake-ups the guest's timers cause under any VMM.
const PEERS: usize = 3;

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
    let qemu = Qemu::new();
    for _ in 0..PEERS.min(report.runs) {
        let mut command = guest.qemu(&qemu);
        command.args(["-name", "peer,debug-threads=on"]);
        let (booted, _) = boot(command);
        std::thread::sleep(SETTLE);
        theirs
            .0
            .push(wake_ups(booted.id(), |name| name.starts_with("CPU")).0);
    }

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
        format!("{:.2}", ours.median()),
        ours.median(),
    );
    report.push(row.samples("own", &ours));
    let (vcpu, peer) = (vcpus.median(), theirs.median());
    let row = Row::new(
        "idle: wake-ups a second of the vCPU, cloude-vmm / QEMU microvm",
        format!("{vcpu:.1}"),
        vcpu / peer,
    );
    report.push(
        row.against(format!("{peer:.1}, the guest's own timers"))
            .promised(Threshold::AtMost(1.1))
            .samples("vcpu", &vcpus)
            .samples("qemu", &theirs),
    );
}

/// Resident and private bytes of all mappings except the guest's memory, which is recognized by its
/// MADV_HUGEPAGE flag (`hg` in VmFlags of smaps, proc(5)).
fn beside_the_guest(id: u32) -> (u64, u64) {
    let smaps = std::fs::read_to_string(format!("/proc/{id}/smaps")).unwrap();
    let (mut resident, mut private, mut guests) = (0, 0, 0);
    let (mut rss, mut own) = (0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let mut bytes = || words.next().unwrap().parse::<u64>().unwrap() * 1024;
        match key {
            "Rss:" => rss = bytes(),
            "Private_Clean:" => own = bytes(),
            "Private_Dirty:" => own += bytes(),
            // VmFlags is the last line of a mapping.
            "VmFlags:" if words.any(|flag| flag == "hg") => guests += 1,
            "VmFlags:" => {
                resident += rss;
                private += own;
            }
            _ => {}
        }
    }
    assert!(guests > 0, "no mapping has the flag hg (MADV_HUGEPAGE)");
    (resident, private)
}

/// Wake-ups a second over [`IDLE`], of the vCPU threads and of all others. A voluntary context switch is counted
/// when a thread goes to sleep, which is once for each wake-up.
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
