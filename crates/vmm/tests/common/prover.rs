//! A guest that checks that its state survives a save and restore: every vCPU fills its registers with known values,
//! prints a letter, and waits to be released. Then it stores the values that it finds.

use std::fs::File;
use std::io::Read;

use cloude_vmm::control::{CpuBaseline, Origin};
use cloude_vmm::probe::open_kvm;
use cloude_vmm::snapshot::{CallCount, Template};
use cloude_vmm::vm::{BlankVm, MachineShape, Saved, Vm};
use vm_memory::{Bytes, GuestAddress};

use code::{BLOCKS, CLOCKS, GO, SHARED, TIGHT, code};

use super::{ENTRY, elf, memfd};

mod code;

/// The guest's kernel.
pub fn kernel() -> File {
    memfd(&elf(code(), Some(ENTRY)))
}

pub const MEMORY_MIB: u64 = 32;

pub fn shape(vcpus: u8) -> MachineShape {
    MachineShape {
        vcpus,
        memory_mib: MEMORY_MIB,
        cpu_baseline: CpuBaseline::Host,
    }
}

pub fn origin() -> Origin {
    Origin {
        kernel: "prover".to_owned(),
        initramfs: "none".to_owned(),
    }
}

/// The serial output of a guest, one letter per event.
pub struct GuestOutput(std::io::PipeReader);

impl GuestOutput {
    /// Waits for `letter` from each of `vcpus`, and for no other letter.
    pub fn wait_for(&mut self, letter: char, vcpus: u8) {
        let mut output = vec![0; vcpus.into()];
        self.0.read_exact(&mut output).unwrap();
        assert_eq!(output, vec![letter as u8; vcpus.into()]);
    }

    /// Skips letters until `vcpus` have printed `last`.
    pub fn wait_for_last(&mut self, last: char, vcpus: u8) {
        let mut missing = vcpus;
        while missing > 0 {
            let mut letter = [0];
            self.0.read_exact(&mut letter).unwrap();
            missing -= u8::from(letter[0] == last as u8);
        }
    }
}

/// A guest that waits for [`go`].
pub fn ready(vcpus: u8) -> (Vm, GuestOutput) {
    start(vcpus, false)
}

fn start(vcpus: u8, tight: bool) -> (Vm, GuestOutput) {
    let (output, console) = std::io::pipe().unwrap();
    let kvm = open_kvm().unwrap();
    let mut vm = Vm::new(&kvm, shape(vcpus), Some(console.into())).unwrap();
    vm.load(&kernel(), &[], "").unwrap();
    vm.memory()
        .write_obj(SHARED_START, GuestAddress(SHARED))
        .unwrap();
    vm.memory()
        .write_obj(u32::from(tight), GuestAddress(TIGHT))
        .unwrap();
    vm.start().unwrap();
    let mut output = GuestOutput(output);
    output.wait_for('r', vcpus);
    (vm, output)
}

/// The initial value of the shared word.
pub const SHARED_START: u32 = 1000;

/// The snapshot of a guest that waits for [`go`].
pub fn saved(vcpus: u8) -> Saved {
    save(ready(vcpus).0)
}

fn save(mut vm: Vm) -> Saved {
    vm.pause();
    vm.handle().unwrap().save(&origin()).unwrap()
}

pub fn template(vcpus: u8) -> Template {
    template_of(saved(vcpus))
}

/// A template whose vCPUs, once released, print a letter within three instructions and halt.
pub fn tight_template(vcpus: u8) -> Template {
    template_of(save(start(vcpus, true).0))
}

fn template_of(saved: Saved) -> Template {
    Template::new(&saved.vm_state.encode().unwrap(), saved.memory).unwrap()
}

pub fn blank(vcpus: u8) -> (BlankVm, GuestOutput) {
    let (output, console) = std::io::pipe().unwrap();
    let vm = Vm::reserved(&open_kvm().unwrap(), shape(vcpus), Some(console.into())).unwrap();
    (BlankVm::new(vm).unwrap(), GuestOutput(output))
}

/// A paused fork.
pub fn fork(template: &Template) -> (Vm, GuestOutput, CallCount) {
    let vcpus = template.vm_state().key.vcpus;
    let (blank, output) = blank(vcpus);
    let (vm, calls) = blank.restore(template, &origin()).unwrap();
    (vm, output, calls)
}

/// Releases the guest from its wait.
pub fn go(vm: &Vm) {
    vm.memory().write_obj(1u32, GuestAddress(GO)).unwrap();
}

pub fn shared(vm: &Vm) -> u32 {
    vm.memory().read_obj(GuestAddress(SHARED)).unwrap()
}

pub fn set_shared(vm: &Vm, value: u32) {
    vm.memory().write_obj(value, GuestAddress(SHARED)).unwrap();
}

/// The results of one vCPU.
pub struct Block<'a>(pub &'a Vm, pub u8);

impl Block<'_> {
    fn word(&self, at: u64) -> u32 {
        let address = BLOCKS + u64::from(self.1) * 0x100 + at;
        self.0.memory().read_obj(GuestAddress(address)).unwrap()
    }

    fn long(&self, at: u64) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }

    pub fn is_done(&self) -> bool {
        self.word(0) == 1
    }

    /// The shared word as the vCPU read it.
    pub fn shared(&self) -> u32 {
        self.word(0x60)
    }

    /// True if the timer's interrupt was pending before the guest was released.
    pub fn timer_fired_before(&self) -> bool {
        self.word(0x34) & 1 != 0
    }

    /// The last TSC before the save, and the first after.
    pub fn tscs(&self) -> (u64, u64) {
        (self.long(0x28), self.long(0x38))
    }

    /// The clock's page: its version, `system_time` in nanoseconds and flags (Linux,
    /// arch/x86/include/asm/pvclock-abi.h).
    pub fn clock(&self) -> (u32, u64, u8) {
        let at = CLOCKS + u64::from(self.1) * 64;
        let memory = self.0.memory();
        (
            memory.read_obj(GuestAddress(at)).unwrap(),
            memory.read_obj(GuestAddress(at + 16)).unwrap(),
            memory.read_obj(GuestAddress(at + 29)).unwrap(),
        )
    }

    /// Checks that every register has the value that the guest set before the save.
    pub fn check_registers(&self) {
        let id = u32::from(self.1);
        let block = BLOCKS as u32 + id * 0x100;
        let cases = [
            ("ebx", 0x04, 0xb000_0000),
            ("ecx", 0x08, 0xc000_0000),
            ("esi", 0x0c, 0x5100_0000),
            ("edi", 0x10, 0xd100_0000),
            ("esp", 0x14, 0x5900_0000),
            ("IA32_SYSENTER_ESP", 0x18, 0x7100_0000),
            ("cr2", 0x20, 0xc200_0000),
            ("dr0", 0x24, 0xd000_0000),
            ("xmm0, word 0", 0x40, 0xf000_0000),
            ("xmm0, word 2", 0x48, 0xf000_0000),
        ];
        for (name, at, base) in cases {
            assert_eq!(self.word(at), base + id, "{name} of vCPU {id}");
        }
        assert_eq!(
            (self.word(0x44), self.word(0x4c)),
            (0x5555_5555, 0xaaaa_aaaa)
        );
        // esi after a lodsd with the direction flag set.
        assert_eq!(self.word(0x1c), block + 0x4c, "DF of vCPU {id}");
    }
}
