//! Detects whether this host's KVM can boot ordinary kernels, by running a few instructions that every kernel uses.
//!
//! A PVM host has /dev/kvm with all capabilities but emulates only some instructions, so that capabilities do not
//! tell.

use std::fmt;

use kvm_bindings::{CpuId, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::arch::x86_64::kernel::Entry;
use crate::arch::x86_64::{long_mode_tables, regs};
use crate::capabilities;
use crate::memory::{self, GuestMemory};

/// The kind of a host's KVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KvmKind {
    /// Ordinary kernels boot.
    Hardware,
    /// The API works and tiny guests run, but an ordinary kernel fails on an instruction that KVM does not emulate.
    Pvm {
        /// The exit of the probe's guest.
        reason: String,
    },
    /// There is no usable KVM.
    None {
        /// The cause and the way out.
        reason: String,
    },
}

impl fmt::Display for KvmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "hardware",
            Self::Pvm { .. } => "pvm",
            Self::None { .. } => "none",
        })
    }
}

/// Opens /dev/kvm. The error text names the way out.
pub fn open_kvm() -> Result<Kvm, String> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT => "there is no /dev/kvm: load the module kvm_intel or kvm_amd, turn on \
                         virtualization in the firmware or, in a VM, nested virtualization"
            .to_owned(),
        libc::EACCES | libc::EPERM => {
            "no permission for /dev/kvm: run as a member of the group kvm, or as root".to_owned()
        }
        _ => format!("cannot open /dev/kvm: {error}"),
    })
}

/// Detects the kind of this host's KVM. Takes some milliseconds.
pub fn kvm_kind() -> KvmKind {
    let kvm = match open_kvm() {
        Ok(kvm) => kvm,
        Err(reason) => return KvmKind::None { reason },
    };
    if let Err(error) = capabilities::check(&kvm) {
        let reason = error.to_string();
        return KvmKind::None { reason };
    }
    match run_guest(&kvm) {
        Ok(()) => KvmKind::Hardware,
        Err(ProbeError::Guest(reason)) => KvmKind::Pvm { reason },
        Err(ProbeError::Host(reason)) => KvmKind::None { reason },
    }
}

enum ProbeError {
    /// KVM or the host's memory failed.
    Host(String),
    /// The guest did not finish.
    Guest(String),
}

impl From<kvm_ioctls::Error> for ProbeError {
    fn from(error: kvm_ioctls::Error) -> Self {
        Self::Host(format!("a KVM ioctl failed: {error}"))
    }
}

const CODE: u64 = 0x10_0000;
/// The port to which the guest writes [`MARK`] as its last step.
const MARK_PORT: u16 = 0x10;
const MARK: u8 = 0x42;

/// `lock cmpxchg16b [rsi]`, where `rsi` is aligned: kernels update page-allocator state with it.
const CMPXCHG16B: &[u8] = &[0xf0, 0x48, 0x0f, 0xc7, 0x0e];
/// `mulx rax, rax, rdx` (BMI2): compilers emit it if the CPU has the feature.
const MULX: &[u8] = &[0xc4, 0xe2, 0xfb, 0xf6, 0xc2];
/// `mov al, MARK; out MARK_PORT, al; hlt`.
const FINISH: &[u8] = &[0xb0, MARK, 0xe6, MARK_PORT as u8, 0xf4];

fn run_guest(kvm: &Kvm) -> Result<(), ProbeError> {
    let memory = memory::allocate(memory::MIN_MIB).map_err(|e| ProbeError::Host(e.to_string()))?;
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?;
    let entry = Entry::Long(CODE);
    write_guest(&memory, &entry, &program(&cpuid)).map_err(ProbeError::Host)?;

    let vm = kvm.create_vm()?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory::size(&memory),
        userspace_addr: host_address(&memory).map_err(ProbeError::Host)?,
    };
    // SAFETY: `memory` owns the mapping and is dropped after the VM.
    unsafe { vm.set_user_memory_region(region)? };
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&cpuid)?;
    regs::set_entry(&vcpu, &entry)?;
    drive(&mut vcpu)
}

fn program(cpuid: &CpuId) -> Vec<u8> {
    /// Leaf 7, EBX.
    const BMI2: u32 = 1 << 8;
    let has_bmi2 = cpuid
        .as_slice()
        .iter()
        .any(|entry| entry.function == 7 && entry.index == 0 && entry.ebx & BMI2 != 0);
    let bmi2 = if has_bmi2 { MULX } else { &[] };
    [CMPXCHG16B, bmi2, FINISH].concat()
}

fn write_guest(memory: &GuestMemory, entry: &Entry, program: &[u8]) -> Result<(), String> {
    regs::write_gdt(memory, entry)
        .and_then(|()| long_mode_tables(memory))
        .and_then(|()| memory.write_slice(program, GuestAddress(CODE)))
        .map_err(|error| error.to_string())
}

fn host_address(memory: &GuestMemory) -> Result<u64, String> {
    memory
        .get_host_address(GuestAddress(0))
        .map(|address| address as u64)
        .map_err(|error| error.to_string())
}

fn drive(vcpu: &mut VcpuFd) -> Result<(), ProbeError> {
    let mut marked = false;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(MARK_PORT, [MARK])) => marked = true,
            Ok(VcpuExit::Hlt) if marked => return Ok(()),
            Ok(VcpuExit::Intr) => {}
            Ok(VcpuExit::InternalError) => {
                return Err(ProbeError::Guest(
                    "KVM does not emulate an instruction that kernels use".to_owned(),
                ));
            }
            Ok(exit) => return Err(ProbeError::Guest(format!("the guest ended with {exit:?}"))),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(ProbeError::Guest(format!("KVM_RUN: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_the_probe_survives_json() {
        let kind = kvm_kind();
        let json = serde_json::to_string(&kind).unwrap();
        assert_eq!(serde_json::from_str::<KvmKind>(&json).unwrap(), kind);
        assert!(json.contains(&kind.to_string()));
    }
}
