//! What KVM makes of a machine: the VM, its memslots and its vCPUs as firmware would leave them.

use kvm_bindings::{CpuId, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::VmError;
use crate::arch::x86_64::boot::BootError;
use crate::arch::x86_64::{cpuid, layout, msrs, regs};
use crate::memory::GuestMemory;

pub(super) fn create_vm(kvm: &Kvm) -> Result<VmFd, VmError> {
    // KVM gives EINTR when a signal comes while it makes a VM.
    let vm = loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => break result.map_err(VmError::kvm("create a VM"))?,
        }
    };
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(VmError::kvm("set the identity map"))?;
    vm.set_tss_address(layout::KVM_TSS as usize)
        .map_err(VmError::kvm("set the task segment"))?;
    Ok(vm)
}

pub(super) fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), VmError> {
    for (slot, region) in memory.iter().enumerate() {
        let host = region
            .get_host_address(vm_memory::MemoryRegionAddress(0))
            .map_err(BootError::Memory)?;
        let memslot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the mapping is the guest's alone and outlives the VM: `Vm` drops its memory after
        // its vCPUs, and KVM keeps no pointer past the last of its descriptors.
        unsafe { vm.set_user_memory_region(memslot) }
            .map_err(VmError::kvm("give the VM its memory"))?;
    }
    Ok(())
}

/// The vCPUs, and what CPUID says on each.
pub(super) fn create_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    count: u8,
) -> Result<Vec<(VcpuFd, CpuId)>, VmError> {
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("say what CPUs it supports"))?;
    let tsc_deadline = vm.check_extension(Cap::TscDeadlineTimer);
    let boot_msrs = msrs::boot_msrs();
    let mut vcpus = Vec::with_capacity(count.into());
    for id in 0..count {
        let vcpu = vm
            .create_vcpu(id.into())
            .map_err(VmError::kvm("create a vCPU"))?;
        let spec = cpuid::CpuidSpec {
            apic_id: id,
            vcpus: count,
            tsc_khz: vcpu.get_tsc_khz().ok(),
            tsc_deadline,
        };
        let cpuid = cpuid::fit(&supported, spec);
        vcpu.set_cpuid2(&cpuid).map_err(VmError::kvm("set CPUID"))?;
        let set = vcpu
            .set_msrs(&boot_msrs)
            .map_err(VmError::kvm("set MSRs"))?;
        if let Some(refused) = boot_msrs.as_slice().get(set) {
            return Err(VmError::Msr {
                index: refused.index,
            });
        }
        vcpu.set_fpu(&regs::boot_fpu())
            .map_err(VmError::kvm("set floating-point state"))?;
        let mut lapic = vcpu
            .get_lapic()
            .map_err(VmError::kvm("give the local APIC"))?;
        regs::set_local_interrupts(&mut lapic);
        vcpu.set_lapic(&lapic)
            .map_err(VmError::kvm("set the local APIC"))?;
        vcpus.push((vcpu, cpuid));
    }
    Ok(vcpus)
}
