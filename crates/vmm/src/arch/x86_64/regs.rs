//! The initial registers of a vCPU.

use kvm_bindings::{kvm_fpu, kvm_lapic_state, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::kernel::Entry;
use super::layout;
use crate::memory::GuestMemory;

/// CR0: protected mode (PE) with an x87 FPU (ET).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always set.
const RFLAGS: u64 = 1 << 1;

/// Writes the GDT for vCPU 0. The selectors are those of Linux's 64-bit boot protocol: code 0x10, data 0x18.
pub fn write_gdt(memory: &GuestMemory, entry: &Entry) -> Result<(), GuestMemoryError> {
    let code = match entry {
        Entry::Pvh(_) => 0x00cf_9b00_0000_ffff_u64,
        Entry::Linux64 { .. } | Entry::Long(_) => 0x00af_9b00_0000_ffff,
    };
    let table = [0, 0, code, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff];
    for (index, descriptor) in table.into_iter().enumerate() {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + 8 * index as u64))?;
    }
    Ok(())
}

/// Sets the registers of vCPU 0 to the kernel's entry point.
pub fn set_entry(vcpu: &VcpuFd, entry: &Entry) -> Result<(), kvm_ioctls::Error> {
    let long = !matches!(entry, Entry::Pvh(_));
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = segment(0x10, 0xb, long);
    let data = segment(0x18, 0x3, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task_segment();
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 5 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    if long {
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = layout::PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }
    vcpu.set_sregs(&sregs)?;

    vcpu.set_regs(&match entry {
        Entry::Pvh(rip) => kvm_regs {
            rip: *rip,
            rbx: layout::PVH_START_INFO,
            rflags: RFLAGS,
            ..Default::default()
        },
        Entry::Linux64 { rip, .. } | Entry::Long(rip) => kvm_regs {
            rip: *rip,
            rsi: layout::ZERO_PAGE,
            rflags: RFLAGS,
            ..Default::default()
        },
    })
}

/// A flat segment whose descriptor has the type `kind`.
fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: (!long).into(),
        s: 1,
        l: long.into(),
        g: 1,
        ..Default::default()
    }
}

/// A busy 32-bit TSS: VM entry on VMX requires one.
fn task_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0x67,
        selector: 0x20,
        type_: 0xb,
        present: 1,
        s: 0,
        g: 0,
        ..Default::default()
    }
}

/// The floating-point state after `finit`, with all exceptions masked.
pub fn boot_fpu() -> kvm_fpu {
    kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    }
}

/// Sets the local interrupt pins as firmware does: LINT0 to ExtINT (the PIC), LINT1 to NMI.
pub fn set_local_interrupts(lapic: &mut kvm_lapic_state) {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const MODE: u32 = 0x700;
    const MODE_NMI: u32 = 0x400;
    const MODE_EXTINT: u32 = 0x700;
    for (register, mode) in [(LVT_LINT0, MODE_EXTINT), (LVT_LINT1, MODE_NMI)] {
        let bytes = &mut lapic.regs[register..register + 4];
        let old = bytes
            .iter()
            .rev()
            .fold(0u32, |value, byte| value << 8 | u32::from(*byte as u8));
        let new = old & !MODE | mode;
        for (byte, value) in bytes.iter_mut().zip(new.to_le_bytes()) {
            *byte = value as _;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_delivery_mode_of_lint_pins_changes() {
        let mut lapic = kvm_lapic_state::default();
        lapic.regs[0x352] = 1;
        set_local_interrupts(&mut lapic);
        assert_eq!(lapic.regs[0x350..0x354], [0, 7, 1, 0]);
        assert_eq!(lapic.regs[0x360..0x364], [0, 4, 0, 0]);
    }
}
