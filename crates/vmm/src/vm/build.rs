//! Creates the KVM VM, its memslots, and its vCPUs in the state that firmware leaves.

use kvm_bindings::{
    KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::error::VmError;
use super::shape::MachineShape;
use crate::arch::x86_64::boot::BootError;
use crate::arch::x86_64::cpuid::{CpuModel, leaf, xsave_components};
use crate::arch::x86_64::{layout, msrs, regs};
use crate::capabilities;
use crate::memory::GuestMemory;
use crate::snapshot::{self, CpuKey, MsrPolicy, VcpuContext, XsaveSize};

/// The CPU model of a VM, and the parameters for saving and restoring its vCPUs.
pub(super) struct Cpu {
    pub model: CpuModel,
    pub context: VcpuContext,
    pub key: CpuKey,
}

pub(super) fn create_vm(kvm: &Kvm) -> Result<VmFd, VmError> {
    capabilities::check(kvm)?;
    // KVM_CREATE_VM returns EINTR if a signal arrives meanwhile.
    let vm = loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => break result.map_err(VmError::kvm("KVM_CREATE_VM"))?,
        }
    };
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(VmError::kvm("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address(layout::KVM_TSS as usize)
        .map_err(VmError::kvm("KVM_SET_TSS_ADDR"))?;
    disable_performance_counters(&vm)?;
    Ok(vm)
}

/// Turns performance counters off, with which a guest could observe other guests. Hiding their CPUID leaves is
/// enough on Intel only: on AMD KVM gives every guest the four counters of the K7. Call it before the first
/// KVM_CREATE_VCPU.
fn disable_performance_counters(vm: &VmFd) -> Result<(), VmError> {
    let supported = vm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into());
    if supported & KVM_PMU_CAP_DISABLE as i32 == 0 {
        return Ok(());
    }
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        ..Default::default()
    };
    capability.args[0] = KVM_PMU_CAP_DISABLE.into();
    vm.enable_cap(&capability)
        .map_err(VmError::kvm("KVM_ENABLE_CAP(KVM_CAP_PMU_CAPABILITY)"))
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
        // SAFETY: the mapping holds guest memory only and outlives the VM: `Vm` drops its memory after its
        // vCPUs, and KVM keeps no pointer once its last descriptor is closed.
        unsafe { vm.set_user_memory_region(memslot) }
            .map_err(VmError::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// Creates the vCPUs, in the state that firmware leaves, and their CPU model.
pub(super) fn create_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    shape: MachineShape,
) -> Result<(Vec<VcpuFd>, Cpu), VmError> {
    let supported = leaf::supported(kvm).map_err(VmError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
    let model = CpuModel::new(&supported, shape.cpu_baseline)?;
    let boot_msrs = msrs::boot_msrs();
    let mut vcpus = Vec::with_capacity(shape.vcpus.into());
    for id in 0..shape.vcpus {
        let vcpu = vm
            .create_vcpu(id.into())
            .map_err(VmError::kvm("KVM_CREATE_VCPU"))?;
        vcpu.set_cpuid2(&model.for_vcpu(id, shape.vcpus)?)
            .map_err(VmError::kvm("KVM_SET_CPUID2"))?;
        let set = vcpu
            .set_msrs(&boot_msrs)
            .map_err(VmError::kvm("KVM_SET_MSRS"))?;
        if let Some(refused) = boot_msrs.as_slice().get(set) {
            return Err(VmError::Msr {
                index: refused.index,
            });
        }
        vcpu.set_fpu(&regs::boot_fpu())
            .map_err(VmError::kvm("KVM_SET_FPU"))?;
        let mut lapic = vcpu.get_lapic().map_err(VmError::kvm("KVM_GET_LAPIC"))?;
        regs::set_local_interrupts(&mut lapic);
        vcpu.set_lapic(&lapic)
            .map_err(VmError::kvm("KVM_SET_LAPIC"))?;
        vcpus.push(vcpu);
    }
    let cpu = Cpu::new(kvm, vm, model, vcpus.first())?;
    Ok((vcpus, cpu))
}

impl Cpu {
    fn new(kvm: &Kvm, vm: &VmFd, model: CpuModel, first: Option<&VcpuFd>) -> Result<Self, VmError> {
        let arch_capabilities = match first {
            Some(vcpu) if model.has_arch_capabilities() => {
                snapshot::read_msr(vcpu, snapshot::ARCH_CAPABILITIES)?.unwrap_or(0)
            }
            _ => 0,
        };
        Ok(Self {
            context: VcpuContext {
                msrs: MsrPolicy::of(kvm, model.has_arch_capabilities())?,
                xsave: XsaveSize::of(vm),
                xsave_components: xsave_components(model.leaves()),
                scales_tsc: vm.check_extension(Cap::TscControl),
            },
            key: CpuKey {
                baseline: model.baseline(),
                leaves: model.key_leaves(),
                arch_capabilities,
            },
            model,
        })
    }
}
