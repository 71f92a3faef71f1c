//! A guest that checks that its state survives a save and restore: every vCPU fills its registers with known values,
//! prints a letter, and waits to be released. Then it stores the values that it finds.

use std::arch::global_asm;
use std::fs::File;
use std::io::Read;

use cloude_vmm::control::{CpuBaseline, Origin};
use cloude_vmm::probe::open_kvm;
use cloude_vmm::snapshot::{CallCount, Template};
use cloude_vmm::vm::{BlankVm, MachineShape, Saved, Vm};
use vm_memory::{Bytes, GuestAddress};

use super::{ENTRY, elf, memfd};

/// The results of the vCPUs: 0x100 bytes each.
const BLOCKS: u64 = 0x9000;
/// Not zero: the guest continues.
const GO: u64 = 0x9f00;
/// Not zero: the guest waits in a loop of two instructions, and once released only prints a letter.
const TIGHT: u64 = 0x9f20;
/// kvmclock pages, 64 bytes for each vCPU.
const CLOCKS: u64 = 0xa000;
/// A word that each released vCPU copies to its block and increments.
const SHARED: u64 = 0x9f10;

// Loaded at ENTRY and entered there in flat 32-bit mode. The GDT at 0x500 is the VMM's: code at 0x10, data
// at 0x18. Nothing that an emulator of few instructions does not know.
global_asm!(
    r#"
    .pushsection .rodata.prover, "a"
    .global prover_start
    .global prover_end
    .code32
prover_start:
    cld
    // mov esi, … (this syntax knows no difference of symbols).
    .byte 0xbe
    .long {entry} + (prover_ap16 - prover_start)
    mov edi, 0x8000
    // mov ecx, …
    .byte 0xb9
    .long prover_ap16_end - prover_ap16
    rep movsb
    // INIT, then STARTUP at page 8, to all others.
    mov dword ptr [0xfee00300], 0x000c4500
    mov dword ptr [0xfee00300], 0x000c4608
    jmp 3f

    .code16
prover_ap16:
    cli
    // lgdt cs:[…]
    .byte 0x2e, 0x0f, 0x01, 0x16
    .word prover_gdtr - prover_ap16
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    // jmp 0x10:2f, with 32 bits of offset.
    .byte 0x66, 0xea
    .long {entry} + (2f - prover_start)
    .word 0x10
prover_gdtr:
    .word 39
    .long 0x500
prover_ap16_end:

    .code32
2:
    mov ax, 0x18
    mov ds, ax
    mov es, ax
    mov ss, ax
3:
    mov eax, dword ptr [0xfee00020]
    shr eax, 24
    mov edi, eax
    mov ebp, eax
    shl ebp, 8
    add ebp, {blocks}
    // SSE: OSFXSR.
    mov eax, cr4
    or eax, 0x600
    mov cr4, eax
    mov eax, edi
    add eax, 0xf0000000
    mov dword ptr [ebp + 0x50], eax
    mov dword ptr [ebp + 0x54], 0x55555555
    mov dword ptr [ebp + 0x58], eax
    mov dword ptr [ebp + 0x5c], 0xaaaaaaaa
    movdqu xmm0, xmmword ptr [ebp + 0x50]
    // IA32_SYSENTER_ESP.
    mov ecx, 0x175
    mov edx, 0
    mov eax, edi
    add eax, 0x71000000
    wrmsr
    // MSR_KVM_SYSTEM_TIME_NEW: the clock's page, and the bit that turns it on.
    mov ecx, 0x4b564d01
    mov eax, edi
    shl eax, 6
    add eax, {clocks} + 1
    wrmsr
    mov eax, edi
    add eax, 0xc2000000
    mov cr2, eax
    mov eax, edi
    add eax, 0xd0000000
    mov dr0, eax
    // The timer: on, one shot, vector 0x40, by 1, for so many nanoseconds.
    mov dword ptr [0xfee000f0], 0x1ff
    mov dword ptr [0xfee00320], 0x40
    mov dword ptr [0xfee003e0], 0xb
    mov dword ptr [0xfee00380], {timer_ns}
    mov ebx, edi
    add ebx, 0xb0000000
    mov ecx, edi
    add ecx, 0xc0000000
    mov esi, edi
    add esi, 0x51000000
    mov esp, edi
    add esp, 0x59000000
    add edi, 0xd1000000
    // Ready.
    mov dx, 0x3f8
    mov al, 'r'
    out dx, al
    std
    mov al, 'g'
    cmp dword ptr [{tight}], 0
    jne 7f
4:
    rdtsc
    mov dword ptr [ebp + 0x28], eax
    mov dword ptr [ebp + 0x2c], edx
    mov eax, dword ptr [0xfee00220]
    mov dword ptr [ebp + 0x34], eax
    cmp dword ptr [{go}], 0
    je 4b

    // Going.
    mov dx, 0x3f8
    mov al, 'g'
    out dx, al
    mov dword ptr [ebp + 0x04], ebx
    mov dword ptr [ebp + 0x08], ecx
    mov dword ptr [ebp + 0x0c], esi
    mov dword ptr [ebp + 0x10], edi
    mov dword ptr [ebp + 0x14], esp
    rdtsc
    mov dword ptr [ebp + 0x38], eax
    mov dword ptr [ebp + 0x3c], edx
    mov eax, cr2
    mov dword ptr [ebp + 0x20], eax
    mov eax, dr0
    mov dword ptr [ebp + 0x24], eax
    movdqu xmmword ptr [ebp + 0x40], xmm0
    mov ecx, 0x175
    rdmsr
    mov dword ptr [ebp + 0x18], eax
    // The direction is down.
    lea esi, [ebp + 0x50]
    lodsd
    mov dword ptr [ebp + 0x1c], esi
    mov eax, dword ptr [{shared}]
    mov dword ptr [ebp + 0x60], eax
    lock inc dword ptr [{shared}]
    mov dx, 0x3f8
    mov al, 'w'
    out dx, al
    // The interrupt that the timer asks for, which is never taken.
5:
    mov eax, dword ptr [0xfee00220]
    test eax, 1
    je 5b
    mov dword ptr [ebp], 1
    mov al, 'd'
    out dx, al
6:
    cli
    hlt
    jmp 6b

    // As little as possible from the save to the first exit.
7:
    cmp dword ptr [{go}], 0
    je 7b
    out dx, al
    jmp 6b
prover_end:
    .code64
    .popsection
    "#,
    entry = const ENTRY,
    blocks = const BLOCKS,
    clocks = const CLOCKS,
    go = const GO,
    tight = const TIGHT,
    shared = const SHARED,
    timer_ns = const TIMER_NS,
);

/// The timeout of each vCPU's timer in nanoseconds: longer than the time to the save. Tests wait for it.
const TIMER_NS: u32 = 1_500_000_000;

unsafe extern "C" {
    static prover_start: u8;
    static prover_end: u8;
}

fn code() -> &'static [u8] {
    // SAFETY: the two symbols are the bounds of one stretch of read-only data.
    unsafe {
        let len = (&raw const prover_end).offset_from(&raw const prover_start);
        std::slice::from_raw_parts(&raw const prover_start, len as usize)
    }
}

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
    Template::new(&saved.record.encode().unwrap(), saved.memory).unwrap()
}

pub fn blank(vcpus: u8) -> (BlankVm, GuestOutput) {
    let (output, console) = std::io::pipe().unwrap();
    let vm = Vm::reserved(&open_kvm().unwrap(), shape(vcpus), Some(console.into())).unwrap();
    (BlankVm::new(vm).unwrap(), GuestOutput(output))
}

/// A paused fork.
pub fn fork(template: &Template) -> (Vm, GuestOutput, CallCount) {
    let vcpus = template.record().key.vcpus;
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
