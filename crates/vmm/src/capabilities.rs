//! The KVM capabilities that VMs require or use (Linux, Documentation/virt/kvm/api.rst).

use kvm_bindings::*;
use kvm_ioctls::Kvm;
use serde::Serialize;

/// The required KVM_GET_API_VERSION: 12 since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// A capability of KVM_CHECK_EXTENSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    #[serde(skip)]
    id: u32,
    /// Its name in `linux/kvm.h`.
    pub name: &'static str,
    /// The use of the capability, as in "needed for ...".
    pub purpose: &'static str,
    /// The first Linux release with the capability.
    pub since: &'static str,
    /// True if no VM can be created without it.
    pub required: bool,
}

macro_rules! capability {
    ($name:ident, $required:ident, $since:literal, $purpose:literal) => {
        Capability {
            id: $name,
            name: stringify!($name),
            purpose: $purpose,
            since: $since,
            required: capability!($required),
        }
    };
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

/// The required capabilities, then the optional ones.
#[rustfmt::skip]
pub const CAPABILITIES: &[Capability] = &[
    capability!(KVM_CAP_USER_MEMORY, required, "2.6.25", "guest memory"),
    capability!(KVM_CAP_SET_TSS_ADDR, required, "2.6.25", "real mode on Intel"),
    capability!(KVM_CAP_SET_IDENTITY_MAP_ADDR, required, "2.6.32", "real mode on Intel"),
    capability!(KVM_CAP_IRQCHIP, required, "2.6.25", "interrupt controllers in the kernel"),
    capability!(KVM_CAP_EXT_CPUID, required, "2.6.25", "the CPU model"),
    capability!(KVM_CAP_IRQFD, required, "2.6.32", "devices' interrupts"),
    capability!(KVM_CAP_IOEVENTFD, required, "2.6.32", "devices' queue notifications"),
    capability!(KVM_CAP_TSC_DEADLINE_TIMER, required, "3.2", "the guest's timer"),
    capability!(KVM_CAP_IMMEDIATE_EXIT, required, "4.11", "pausing vCPUs"),
    capability!(KVM_CAP_MP_STATE, required, "2.6.26", "snapshots"),
    capability!(KVM_CAP_VCPU_EVENTS, required, "2.6.33", "snapshots"),
    capability!(KVM_CAP_DEBUGREGS, required, "2.6.35", "snapshots"),
    capability!(KVM_CAP_XSAVE, required, "2.6.36", "snapshots"),
    capability!(KVM_CAP_XCRS, required, "2.6.36", "snapshots"),
    capability!(KVM_CAP_ADJUST_CLOCK, required, "2.6.33", "guest time in snapshots"),
    capability!(KVM_CAP_KVMCLOCK_CTRL, required, "3.5", "guest time in snapshots"),
    capability!(KVM_CAP_GET_TSC_KHZ, optional, "3.0", "comparing TSC frequencies when a snapshot loads"),
    capability!(KVM_CAP_TSC_CONTROL, optional, "3.0", "loading snapshots of another TSC frequency (the processor must scale the TSC)"),
    capability!(KVM_CAP_XSAVE2, optional, "5.17", "XSAVE state of more than 4 KiB, which the CPU model does not offer"),
    capability!(KVM_CAP_PMU_CAPABILITY, optional, "5.18", "turning performance counters off"),
    capability!(KVM_CAP_PRE_FAULT_MEMORY, optional, "6.11", "mapping a fork's pages before it runs"),
];

/// A KVM that cannot run our VMs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// The kernel is older than Linux 2.6.22, or not Linux.
    #[error("KVM_GET_API_VERSION is {found} and must be {API_VERSION}: update the host's kernel")]
    ApiVersion {
        /// KVM_GET_API_VERSION of this host.
        found: i32,
    },
    /// A required capability is missing. Update the host's kernel.
    #[error("KVM lacks {name}, which is needed for {purpose}: use Linux {since} or later")]
    Missing {
        /// The name in `linux/kvm.h`.
        name: &'static str,
        /// The use of the capability.
        purpose: &'static str,
        /// The first Linux release with the capability.
        since: &'static str,
    },
}

/// Checks the API version and all required capabilities.
pub fn check(kvm: &Kvm) -> Result<(), CapabilityError> {
    check_with(kvm.get_api_version(), |id| has(kvm, id))
}

/// Each capability, and true if this KVM has it.
pub fn list(kvm: &Kvm) -> Vec<(Capability, bool)> {
    let with = |capability: &Capability| (*capability, has(kvm, capability.id));
    CAPABILITIES.iter().map(with).collect()
}

fn has(kvm: &Kvm, id: u32) -> bool {
    kvm.check_extension_raw(id.into()) > 0
}

fn check_with(version: i32, has: impl Fn(u32) -> bool) -> Result<(), CapabilityError> {
    if version != API_VERSION {
        return Err(CapabilityError::ApiVersion { found: version });
    }
    let mut required = CAPABILITIES.iter().filter(|capability| capability.required);
    match required.find(|capability| !has(capability.id)) {
        None => Ok(()),
        Some(&Capability {
            name,
            purpose,
            since,
            ..
        }) => Err(CapabilityError::Missing {
            name,
            purpose,
            since,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named_with_its_kernel() {
        let error = check_with(12, |id| id != KVM_CAP_IMMEDIATE_EXIT).unwrap_err();
        assert_eq!(
            error.to_string(),
            "KVM lacks KVM_CAP_IMMEDIATE_EXIT, which is needed for pausing vCPUs: use Linux 4.11 or later"
        );
    }

    #[test]
    fn another_api_version_is_refused() {
        let error = check_with(11, |_| true).unwrap_err();
        assert_eq!(error, CapabilityError::ApiVersion { found: 11 });
    }

    #[test]
    fn an_optional_capability_may_be_missing() {
        let required = |id| {
            let mut all = CAPABILITIES.iter();
            all.any(|capability| capability.id == id && capability.required)
        };
        assert_eq!(check_with(12, required), Ok(()));
    }
}
