//! Snapshots that do not fit or are damaged are refused.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use cloude_vmm::arch::x86_64::cpuid::Leaf;
use cloude_vmm::control::{CpuBaseline, Origin};
use cloude_vmm::devices::virtio::rng::Rng;
use cloude_vmm::probe::open_kvm;
use cloude_vmm::snapshot::{SnapshotError, Template, VmState, VmStateError};
use cloude_vmm::vm::{BlankVm, MachineShape, Saved, Vm};
use common::prover;

/// The error of restoring a VM state after `change`.
fn refused(change: impl Fn(&mut VmState)) -> SnapshotError {
    let Saved {
        mut vm_state,
        memory,
    } = prover::saved(1);
    change(&mut vm_state);
    let template = Template::new(&vm_state.encode().unwrap(), memory).unwrap();
    let (blank, _output) = prover::blank(1);
    match blank.restore(&template, &prover::origin()) {
        Err(error) => error,
        Ok(_) => panic!("it was restored"),
    }
}

#[test]
fn a_state_of_another_cpu_is_refused() {
    let part = |change: &dyn Fn(&mut VmState)| match refused(change) {
        SnapshotError::Mismatch(mismatch) => mismatch.part,
        error => panic!("{error}"),
    };
    let add_leaf = |vm_state: &mut VmState| {
        let leaf = Leaf::new(7, 3, [1, 0, 0, 0]);
        vm_state.key.cpu.leaves.push(leaf);
    };
    assert_eq!(part(&add_leaf), "CPU");
    let other_baseline = |vm_state: &mut VmState| vm_state.key.cpu.baseline = CpuBaseline::V2;
    assert_eq!(part(&other_baseline), "CPU baseline");
}

#[test]
fn a_state_that_lacks_a_vcpu_or_a_device_is_refused() {
    let error = refused(|vm_state| vm_state.state.vcpus.clear());
    assert!(matches!(
        error,
        SnapshotError::Incomplete { what: "vCPUs", .. }
    ));
    let error = refused(|vm_state| drop(vm_state.state.devices.pop()));
    assert!(matches!(
        error,
        SnapshotError::Incomplete {
            what: "devices",
            ..
        }
    ));
}

#[test]
fn a_malformed_or_swapped_device_state_is_refused() {
    let error = refused(|vm_state| vm_state.state.devices[0].state.clear());
    assert!(matches!(error, SnapshotError::Device(_)));
    let error = refused(|vm_state| vm_state.state.devices[0].state.push(0));
    assert!(matches!(error, SnapshotError::Device(_)));
    let error = refused(|vm_state| vm_state.state.devices.swap(0, 1));
    assert!(matches!(error, SnapshotError::Device(_)));
}

#[test]
fn a_snapshot_of_other_software_is_refused() {
    let template = prover::template(1);
    type Case = (fn(&mut Origin), &'static str);
    let cases: [Case; 2] = [
        (|origin| origin.kernel.push('x'), "kernel"),
        (|origin| origin.initramfs.push('x'), "initramfs"),
    ];
    for (change, expected) in cases {
        let mut origin = prover::origin();
        change(&mut origin);
        let (blank, _output) = prover::blank(1);
        match blank.restore(&template, &origin) {
            Err(SnapshotError::Mismatch(mismatch)) => assert_eq!(mismatch.part, expected),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was restored"),
        }
    }
}

#[test]
fn a_blank_vm_of_another_shape_restores_nothing() {
    let template = prover::template(1);
    let kvm = open_kvm().unwrap();
    let of = |vcpus, memory_mib| {
        let shape = MachineShape {
            vcpus,
            memory_mib,
            cpu_baseline: CpuBaseline::Host,
        };
        Vm::reserved(&kvm, shape, None).unwrap()
    };
    let mut with_device = of(1, prover::MEMORY_MIB);
    with_device.attach_virtio(Rng).unwrap();
    for vm in [of(2, prover::MEMORY_MIB), of(1, 33), with_device] {
        let blank = BlankVm::new(vm).unwrap();
        match blank.restore(&template, &prover::origin()) {
            Err(SnapshotError::Mismatch(mismatch)) => assert_eq!(mismatch.part, "machine"),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was restored"),
        }
    }
}

#[test]
fn any_damage_to_a_state_file_is_an_error() {
    let bytes = prover::saved(1).vm_state.encode().unwrap();
    assert!(VmState::decode(&bytes).is_ok());
    for len in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
        let error = VmState::decode(&bytes[..len]).unwrap_err();
        assert!(
            matches!(error, VmStateError::Truncated { .. }),
            "{len}: {error}"
        );
    }
    for bit in (0..bytes.len() * 8).step_by(1 + bytes.len() * 8 / 500) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(VmState::decode(&damaged).is_err(), "bit {bit}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(
        VmState::decode(&longer),
        Err(VmStateError::TooLong { .. })
    ));
    let mut other = bytes.clone();
    other[8] += 1;
    assert!(matches!(
        VmState::decode(&other),
        Err(VmStateError::OtherVersion { .. })
    ));
    assert_eq!(
        VmState::decode(b"#!/bin/sh").unwrap_err(),
        VmStateError::NotAStateFile
    );
}
