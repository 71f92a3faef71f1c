//! A guest that is saved, restored into a fork, and continues with the same state.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::arch::x86_64::_rdtsc;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use cloude_vmm::arch::x86_64::layout;
use cloude_vmm::devices::vmgenid;
use cloude_vmm::probe::{KvmKind, kvm_kind, open_kvm};
use cloude_vmm::snapshot::{self, PageRange, SnapshotError, Template, WorkingSet, save_sparse};
use cloude_vmm::vm::{Saved, Vm};
use common::prover::{self, Block};
use kvm_ioctls::Cap;
use vm_memory::{Bytes, GuestAddress};

/// A guest that was saved before the timer of a vCPU expired. On a busy host this may need another guest.
fn saved_in_time(vcpus: u8) -> (Vm, Saved) {
    loop {
        let (mut vm, _output) = prover::ready(vcpus);
        vm.pause();
        let saved = vm.handle().unwrap().save(&prover::origin()).unwrap();
        if (0..vcpus).all(|id| !Block(&vm, id).timer_fired_before()) {
            return (vm, saved);
        }
    }
}

fn continues(vcpus: u8) {
    let (template_vm, Saved { vm_state, memory }) = saved_in_time(vcpus);
    let template = Template::new(&vm_state.encode().unwrap(), memory).unwrap();

    let (mut fork, mut output, _) = prover::fork(&template);
    prover::go(&fork);
    fork.resume().unwrap();
    output.wait_for_last('d', vcpus);

    for id in 0..vcpus {
        let (before, after) = (Block(&template_vm, id), Block(&fork, id));
        assert!(after.is_done());
        after.check_registers();
        let (last, first) = after.tscs();
        assert!(first > last, "TSC of vCPU {id}: {last}, then {first}");
        // It may have read once more on its way out of the loop.
        let saved = before.tscs().0;
        assert!(last >= saved, "TSC of vCPU {id}: {saved}, then {last}");
        let ((_, time_before, _), (version, time_after, flags)) = (before.clock(), after.clock());
        assert!(version % 2 == 0 && time_after >= time_before, "vCPU {id}");
        const GUEST_STOPPED: u8 = 2;
        assert_ne!(
            flags & GUEST_STOPPED,
            0,
            "KVMCLOCK_CTRL did not mark vCPU {id} as stopped"
        );
    }
    assert_eq!(
        prover::shared(&fork),
        prover::SHARED_START + u32::from(vcpus)
    );
}

#[test]
fn a_fork_of_one_vcpu_continues_with_the_saved_state() {
    continues(1);
}

#[test]
fn a_fork_of_four_vcpus_continues_with_the_saved_state() {
    continues(4);
}

#[test]
fn guest_time_does_not_advance_while_a_fork_waits() {
    const WAIT: Duration = Duration::from_secs(3);
    let template = prover::template(1);
    // The first values of its clocks (TSC, nanoseconds), and the longest time that the fork can have run until then,
    // measured on the host.
    let first = |wait: Duration| {
        let (mut fork, mut output, _) = prover::fork(&template);
        std::thread::sleep(wait);
        prover::go(&fork);
        // SAFETY: every x86-64 processor has the instruction.
        let (tsc, start) = (unsafe { _rdtsc() }, Instant::now());
        fork.resume().unwrap();
        output.wait_for_last('w', 1);
        // SAFETY: as above.
        let ran = (unsafe { _rdtsc() } - tsc, start.elapsed());
        let block = Block(&fork, 0);
        (block.tscs().1, block.clock().1, ran)
    };
    let (tsc, ns, _) = first(Duration::ZERO);
    let (later_tsc, later_ns, (ran_ticks, ran)) = first(WAIT);
    // A clock that had gone on is ahead by WAIT, less the time to the first fork's reading. kvmclock may differ from
    // the host's by its multiplier's rounding.
    let ns = later_ns.saturating_sub(ns);
    assert!(ns < (ran + WAIT / 100).as_nanos() as u64, "{ns} of {ran:?}");
    // A guest of PVM reads the processor's own.
    if kvm_kind() == KvmKind::Hardware {
        let ticks = later_tsc.saturating_sub(tsc);
        assert!(
            ticks <= ran_ticks + ran_ticks / 100,
            "{ticks} of {ran_ticks}"
        );
    }
}

#[test]
fn a_fork_with_every_page_prefaulted_continues() {
    const VCPUS: u8 = 4;
    let template = prover::template(VCPUS);
    let (mut fork, mut output, _) = prover::fork(&template);
    let pages = (template.vm_state().key.memory_mib << 20) / 4096;
    let all = PageRange {
        first: 0,
        count: pages as u32,
    };
    let set = WorkingSet {
        written: vec![all],
        read: vec![all],
    };
    let handle = fork.handle().unwrap();
    handle.map_read(&set).unwrap();
    handle.copy_written(&set).unwrap();
    prover::go(&fork);
    fork.resume().unwrap();
    output.wait_for_last('d', VCPUS);
    for id in 0..VCPUS {
        let block = Block(&fork, id);
        assert!(block.is_done());
        block.check_registers();
    }
    assert_eq!(
        prover::shared(&fork),
        prover::SHARED_START + u32::from(VCPUS)
    );
}

#[test]
fn forks_and_their_template_share_no_writes() {
    let template = prover::template(1);
    let digest = snapshot::memory_digest(template.memory()).unwrap();
    let (mut first, mut first_output, _) = prover::fork(&template);
    let (mut second, mut second_output, _) = prover::fork(&template);
    prover::set_shared(&first, 1);
    for fork in [&mut first, &mut second] {
        prover::go(fork);
        fork.resume().unwrap();
    }
    first_output.wait_for_last('w', 1);
    second_output.wait_for_last('w', 1);
    assert_eq!(prover::shared(&first), 2);
    assert_eq!(Block(&second, 0).shared(), prover::SHARED_START);
    assert_eq!(prover::shared(&second), prover::SHARED_START + 1);
    assert_eq!(snapshot::memory_digest(template.memory()).unwrap(), digest);
}

#[test]
fn each_fork_has_another_generation_id() {
    let (mut vm, _output) = prover::ready(1);
    let id = |vm: &Vm| -> [u8; vmgenid::SIZE] {
        let at = GuestAddress(layout::VMGENID);
        vm.memory().read_obj(at).unwrap()
    };
    vm.pause();
    let saved = vm.handle().unwrap().save(&prover::origin()).unwrap();
    let template = Template::new(&saved.vm_state.encode().unwrap(), saved.memory).unwrap();
    let mut ids = vec![id(&vm)];
    for _ in 0..3 {
        let (fork, _output, _) = prover::fork(&template);
        assert!(!ids.contains(&id(&fork)));
        ids.push(id(&fork));
    }
    // The saved VM keeps its ID.
    assert_eq!(id(&vm), ids[0]);
}

#[test]
fn a_saved_vm_can_resume_without_changing_its_snapshot() {
    let (mut vm, mut output) = prover::ready(1);
    vm.pause();
    let saved = vm.handle().unwrap().save(&prover::origin()).unwrap();
    prover::go(&vm);
    vm.resume().unwrap();
    output.wait_for_last('w', 1);
    assert_eq!(prover::shared(&vm), prover::SHARED_START + 1);
    let digest = snapshot::memory_digest(&saved.memory).unwrap();
    assert_eq!(digest, saved.vm_state.memory_digest);
    assert!(saved.memory.write_at(b"x", 0).is_err());
}

#[test]
fn a_running_vm_cannot_be_saved() {
    let (vm, _output) = prover::ready(1);
    let error = vm.handle().unwrap().save(&prover::origin()).unwrap_err();
    assert!(matches!(error, SnapshotError::NotPaused));
}

/// A fork of a template whose saved TSC frequency is higher by `ppm`.
fn fork_of_tsc(ppm: u32) -> Result<(), SnapshotError> {
    let Saved {
        mut vm_state,
        memory,
    } = prover::saved(1);
    for vcpu in &mut vm_state.state.vcpus {
        vcpu.tsc_khz += (u64::from(vcpu.tsc_khz) * u64::from(ppm) / 1_000_000) as u32;
    }
    let template = Template::new(&vm_state.encode().unwrap(), memory).unwrap();
    let (blank, mut output) = prover::blank(1);
    let (mut fork, _) = blank.restore(&template, &prover::origin())?;
    prover::go(&fork);
    fork.resume()?;
    output.wait_for_last('d', 1);
    Block(&fork, 0).check_registers();
    Ok(())
}

#[test]
fn a_template_of_another_tsc_calibration_continues() {
    fork_of_tsc(200).unwrap();
}

#[test]
fn another_tsc_frequency_needs_tsc_scaling() {
    let scales = open_kvm().unwrap().check_extension(Cap::TscControl);
    match fork_of_tsc(300) {
        Ok(()) => assert!(scales),
        Err(error) => {
            assert!(!scales);
            let message = error.to_string();
            assert!(message.contains("TSC frequency saved "), "{message}");
            assert!(
                message.contains(" kHz, more than 250 ppm apart"),
                "{message}"
            );
        }
    }
}

#[test]
fn a_fork_continues_from_a_sparse_memory_file() {
    let Saved { vm_state, memory } = prover::saved(1);
    let bytes = vm_state.encode().unwrap();
    let file = tempfile();
    save_sparse(&memory, &file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), prover::MEMORY_MIB << 20);
    // A handful of pages: tables, code and blocks.
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    let template = Template::new(&bytes, file).unwrap();
    template.verify_memory().unwrap();
    let (mut fork, mut output, _) = prover::fork(&template);
    prover::go(&fork);
    fork.resume().unwrap();
    output.wait_for_last('w', 1);
    Block(&fork, 0).check_registers();
}

#[test]
fn truncated_or_changed_memory_is_detected() {
    let Saved { vm_state, memory } = prover::saved(1);
    let bytes = vm_state.encode().unwrap();
    let copy = || {
        let file = tempfile();
        save_sparse(&memory, &file).unwrap();
        file
    };
    let cut = copy();
    cut.set_len(1 << 20).unwrap();
    assert!(matches!(
        Template::new(&bytes, cut),
        Err(SnapshotError::Memory(_))
    ));
    let changed = copy();
    let mut byte = [0];
    changed.read_exact_at(&mut byte, 0x10_0000).unwrap();
    changed.write_all_at(&[byte[0] ^ 1], 0x10_0000).unwrap();
    let template = Template::new(&bytes, changed).unwrap();
    assert!(template.verify_memory().is_err());
    let whole = Template::new(&bytes, copy()).unwrap();
    whole.verify_memory().unwrap();
}

/// An unlinked file on a file system with holes.
fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!(
        "cloude-snapshot-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path);
    std::fs::remove_file(&path).unwrap();
    file.unwrap()
}
