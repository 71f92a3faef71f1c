//! The numbers of the ioctls that a worker uses (linux/kvm.h, linux/if_tun.h, asm-generic/ioctls.h).
//!
//! kvm-ioctls does not export its own. A number holds direction and size, so that a list allows exactly one
//! structure; a test compares them with the calls that kvm-ioctls makes by running VMs under the filters.

use kvm_bindings::{
    KVMIO, kvm_clock_data, kvm_cpuid2, kvm_debugregs, kvm_enable_cap, kvm_fpu, kvm_ioeventfd,
    kvm_irq_level, kvm_irqchip, kvm_irqfd, kvm_lapic_state, kvm_mp_state, kvm_msr_list, kvm_msrs,
    kvm_pre_fault_memory, kvm_regs, kvm_sregs, kvm_translation, kvm_userspace_memory_region,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

use super::calls::When;

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn number<T>(direction: u32, nr: u32) -> When {
    When::Equals(
        1,
        direction << 30 | (size_of::<T>() as u32) << 16 | KVMIO << 8 | nr,
    )
}

/// `_IO(KVMIO, nr)`.
const fn io(nr: u32) -> When {
    number::<()>(0, nr)
}

/// `_IOR(KVMIO, nr, T)`.
const fn ior<T>(nr: u32) -> When {
    number::<T>(READ, nr)
}

/// `_IOW(KVMIO, nr, T)`.
const fn iow<T>(nr: u32) -> When {
    number::<T>(WRITE, nr)
}

/// `_IOWR(KVMIO, nr, T)`.
const fn iowr<T>(nr: u32) -> When {
    number::<T>(READ | WRITE, nr)
}

/// Creating a VM with its vCPUs, memory and devices.
#[rustfmt::skip]
pub(super) const CREATE: &[When] = &[
    io(0x00),                                   // KVM_GET_API_VERSION
    io(0x01),                                   // KVM_CREATE_VM
    iowr::<kvm_msr_list>(0x02),                 // KVM_GET_MSR_INDEX_LIST
    io(0x03),                                   // KVM_CHECK_EXTENSION
    io(0x04),                                   // KVM_GET_VCPU_MMAP_SIZE
    iowr::<kvm_cpuid2>(0x05),                   // KVM_GET_SUPPORTED_CPUID
    io(0x41),                                   // KVM_CREATE_VCPU
    iow::<kvm_userspace_memory_region>(0x46),   // KVM_SET_USER_MEMORY_REGION
    io(0x47),                                   // KVM_SET_TSS_ADDR
    iow::<u64>(0x48),                           // KVM_SET_IDENTITY_MAP_ADDR
    io(0x60),                                   // KVM_CREATE_IRQCHIP
    iow::<kvm_irqfd>(0x76),                     // KVM_IRQFD
    iow::<kvm_ioeventfd>(0x79),                 // KVM_IOEVENTFD
    iow::<kvm_cpuid2>(0x90),                    // KVM_SET_CPUID2
    iow::<kvm_fpu>(0x8d),                       // KVM_SET_FPU
    iow::<kvm_enable_cap>(0xa3),                // KVM_ENABLE_CAP
];

/// Setting the state of a restored VM, before it first runs.
#[rustfmt::skip]
pub(super) const SET_STATE: &[When] = &[
    iow::<kvm_irq_level>(0x61),                 // KVM_IRQ_LINE
    ior::<kvm_irqchip>(0x63),                   // KVM_SET_IRQCHIP
    iow::<kvm_regs>(0x82),                      // KVM_SET_REGS
    iow::<kvm_sregs>(0x84),                     // KVM_SET_SREGS
    iow::<kvm_lapic_state>(0x8f),               // KVM_SET_LAPIC
    iow::<kvm_mp_state>(0x99),                  // KVM_SET_MP_STATE
    iow::<kvm_vcpu_events>(0xa0),               // KVM_SET_VCPU_EVENTS
    iow::<kvm_debugregs>(0xa2),                 // KVM_SET_DEBUGREGS
    io(0xa2),                                   // KVM_SET_TSC_KHZ
    iow::<kvm_xsave>(0xa5),                     // KVM_SET_XSAVE
    iow::<kvm_xcrs>(0xa7),                      // KVM_SET_XCRS
];

/// Reading the state of a VM for a snapshot.
#[rustfmt::skip]
pub(super) const GET_STATE: &[When] = &[
    iowr::<kvm_irqchip>(0x62),                  // KVM_GET_IRQCHIP
    ior::<kvm_clock_data>(0x7c),                // KVM_GET_CLOCK
    ior::<kvm_regs>(0x81),                      // KVM_GET_REGS
    ior::<kvm_sregs>(0x83),                     // KVM_GET_SREGS
    iowr::<kvm_msrs>(0x88),                     // KVM_GET_MSRS
    ior::<kvm_lapic_state>(0x8e),               // KVM_GET_LAPIC
    ior::<kvm_mp_state>(0x98),                  // KVM_GET_MP_STATE
    ior::<kvm_vcpu_events>(0x9f),               // KVM_GET_VCPU_EVENTS
    ior::<kvm_debugregs>(0xa1),                 // KVM_GET_DEBUGREGS
    io(0xa3),                                   // KVM_GET_TSC_KHZ
    ior::<kvm_xsave>(0xa4),                     // KVM_GET_XSAVE
    ior::<kvm_xcrs>(0xa6),                      // KVM_GET_XCRS
    ior::<kvm_xsave>(0xcf),                     // KVM_GET_XSAVE2
];

/// Letting a VM run: its time and its pages.
#[rustfmt::skip]
pub(super) const RESUME: &[When] = &[
    iow::<kvm_clock_data>(0x7b),                // KVM_SET_CLOCK
    iow::<kvm_msrs>(0x89),                      // KVM_SET_MSRS: TSC and TSC deadline
    io(0xad),                                   // KVM_KVMCLOCK_CTRL
    iowr::<kvm_pre_fault_memory>(0xd5),         // KVM_PRE_FAULT_MEMORY
];

/// Running the guest, and explaining a KVM_EXIT_INTERNAL_ERROR.
#[rustfmt::skip]
pub(super) const RUN: &[When] = &[
    io(0x80),                                   // KVM_RUN
    ior::<kvm_regs>(0x81),                      // KVM_GET_REGS
    ior::<kvm_sregs>(0x83),                     // KVM_GET_SREGS
    iowr::<kvm_translation>(0x85),              // KVM_TRANSLATE
];

/// The first KVM_RUN of a blank VM's vCPU.
pub(super) const WARM_UP: &[When] = &[
    iow::<kvm_mp_state>(0x99), // KVM_SET_MP_STATE
];

/// Making a virtio-net device of a TAP.
pub(super) const TAP: &[When] = &[
    When::Equals(1, 0x4004_54d8), // TUNSETVNETHDRSZ
];

/// Ioctls of devices at run time.
pub(super) const DEVICES: &[When] = &[
    When::Equals(1, 0x4004_54d0), // TUNSETOFFLOAD: the guest's driver selects the offloads
    When::Equals(1, 0x541b),      // FIONREAD of a vsock connection's stream
];
