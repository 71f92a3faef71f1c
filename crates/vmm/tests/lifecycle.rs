//! The library's `Vm`: start, pause, resume and end.

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

/// A guest that increments [`COUNTER`] in a loop: `inc dword [0x9000]; jmp` back.
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

/// Waits until the counter is above `past`.
fn wait_past(vm: &Vm, past: u32) {
    while count(vm) <= past {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_paused_guest_stops_and_continues_after_resume() {
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
fn an_unstarted_and_a_running_vm_can_be_dropped() {
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
fn no_vcpu_runs_after_the_end_even_with_a_handle_left() {
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
fn a_baseline_gives_a_vm_or_names_missing_features() {
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
