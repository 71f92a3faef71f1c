//! A VM as a library: pausing it, and its devices' order of calls.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod common;

use std::time::Duration;

use cloude_vmm::arch::x86_64::cpuid::{CpuModel, leaf};
use cloude_vmm::control::{CpuBaseline, ExitReason};
use cloude_vmm::probe::open_kvm;
use cloude_vmm::vm::{MachineShape, Vm, VmError};
use common::Code;
use vm_memory::{Bytes, GuestAddress};

const COUNTER: u64 = 0x9000;

/// Counts at [`COUNTER`] for ever: `inc dword [0x9000]; jmp` back.
fn counting() -> Vm {
    let code = Code::new().bytes(&[0xff, 0x05, 0x00, 0x90, 0, 0, 0xeb, 0xf8]);
    let shape = MachineShape {
        vcpus: 1,
        memory_mib: 32,
        cpu_baseline: CpuBaseline::Host,
    };
    let mut vm = Vm::new(&open_kvm().unwrap(), shape, None).unwrap();
    vm.load(&code.pvh(), &[], "").unwrap();
    vm
}

fn count(vm: &Vm) -> u32 {
    vm.memory().read_obj(GuestAddress(COUNTER)).unwrap()
}

/// Waits until the guest has counted past `count`; hangs, and so fails, if it never does.
fn wait_past(vm: &Vm, past: u32) {
    while count(vm) <= past {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_paused_guest_stands_still_and_goes_on_where_it_was() {
    let mut vm = counting();
    vm.start().unwrap();
    for _ in 0..20 {
        wait_past(&vm, count(&vm));
        vm.pause();
        let at = count(&vm);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(count(&vm), at);
        vm.resume().unwrap();
        wait_past(&vm, at);
    }
}

#[test]
fn a_vm_that_was_never_started_can_be_dropped_and_one_that_runs_too() {
    drop(counting());
    let mut vm = counting();
    vm.start().unwrap();
    wait_past(&vm, 0);
    drop(vm);
}

#[test]
fn a_vm_starts_once() {
    let mut vm = counting();
    vm.start().unwrap();
    assert!(matches!(vm.start(), Err(VmError::Started)));
}

#[test]
fn no_vcpu_runs_once_the_end_is_known_whoever_has_a_handle() {
    let mut vm = counting();
    vm.start().unwrap();
    let handle = vm.handle().unwrap();
    wait_past(&vm, 0);
    vm.exit_signal().raise(ExitReason::Stopped);

    vm.serve(Vec::new()).unwrap();

    assert!(!handle.is_running());
    let at = count(&vm);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(count(&vm), at);
}

#[test]
fn a_baseline_makes_a_vm_or_names_what_the_host_lacks() {
    let kvm = open_kvm().unwrap();
    let supported = leaf::supported(&kvm).unwrap();
    for cpu_baseline in CpuBaseline::ALL {
        let shape = MachineShape {
            vcpus: 2,
            memory_mib: 32,
            cpu_baseline,
        };
        let expected = CpuModel::new(&supported, cpu_baseline);
        match (Vm::new(&kvm, shape, None), expected) {
            (Ok(_), Ok(_)) => {}
            (Err(VmError::Cpu(error)), Err(expected)) => assert_eq!(error, expected),
            (vm, _) => panic!("{cpu_baseline}: {:?}", vm.err()),
        }
    }
}
