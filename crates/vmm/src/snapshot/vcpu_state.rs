//! The state of one vCPU: what is read, in which order, and how it is restored.

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::blob::Blob;
use super::calls::CallCount;
use super::error::{SnapshotError, StateKind};
use super::msrs::{self, MsrPolicy, TSC, TSC_DEADLINE};
use super::xsave::XsaveSize;
use super::{lapic_timer, tsc};

/// Parameters of saving and restoring a vCPU that depend on the host and the CPU model.
#[derive(Clone, Debug)]
pub struct VcpuContext {
    /// The MSRs to save.
    pub msrs: MsrPolicy,
    /// The size of the XSAVE area.
    pub xsave: XsaveSize,
    /// The XSAVE components that the guest can enable, as bits of XCR0.
    pub xsave_components: u64,
    /// KVM_CAP_TSC_CONTROL: the processor can scale the TSC.
    pub scales_tsc: bool,
}

/// The state of a vCPU in KVM, without its CPUID, which is part of the key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VcpuState {
    /// The TSC frequency in kHz; 0 if KVM_GET_TSC_KHZ fails, and then a restore does not set it.
    pub tsc_khz: u32,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Blob,
    xcrs: kvm_xcrs,
    debug_regs: kvm_debugregs,
    lapic: Blob,
    msrs: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
}

/// The order in which the state is read.
///
/// MP_STATE comes first: KVM_GET_MP_STATE processes a pending INIT or SIPI, which changes registers.
///
/// The TSC deadline comes before LAPIC, the other MSRs after it. The timer may expire between any two ioctls; KVM then
/// clears the deadline and sets the vector's bit in IRR. In this order the saved state has the deadline, the bit, or
/// both. In the reverse order it could have neither, and every fork would wait for an interrupt that never comes. A
/// spurious timer interrupt is harmless.
const SAVE_ORDER: [StateKind; 11] = [
    StateKind::MpState,
    StateKind::TscKhz,
    StateKind::TscDeadline,
    StateKind::Regs,
    StateKind::Sregs,
    StateKind::Xsave,
    StateKind::Xcrs,
    StateKind::DebugRegs,
    StateKind::Lapic,
    StateKind::Msrs,
    StateKind::VcpuEvents,
];

impl VcpuState {
    /// Reads the state of a paused vCPU.
    pub fn save(vcpu: &VcpuFd, context: &VcpuContext) -> Result<Self, SnapshotError> {
        let mut state = Self::default();
        let mut deadline = None;
        for kind in SAVE_ORDER {
            let get = SnapshotError::get(kind);
            match kind {
                StateKind::MpState => state.mp_state = vcpu.get_mp_state().map_err(get)?,
                StateKind::TscKhz => state.tsc_khz = vcpu.get_tsc_khz().unwrap_or(0),
                StateKind::TscDeadline => deadline = msrs::read(vcpu, TSC_DEADLINE)?,
                StateKind::Regs => state.regs = vcpu.get_regs().map_err(get)?,
                StateKind::Sregs => state.sregs = vcpu.get_sregs().map_err(get)?,
                StateKind::Xsave => {
                    state.xsave = context.xsave.save(vcpu, context.xsave_components)?;
                }
                StateKind::Xcrs => state.xcrs = vcpu.get_xcrs().map_err(get)?,
                StateKind::DebugRegs => state.debug_regs = vcpu.get_debug_regs().map_err(get)?,
                StateKind::Lapic => {
                    let lapic = vcpu.get_lapic().map_err(get)?;
                    state.lapic = Blob::new(&lapic.regs.map(|byte| byte as u8));
                }
                StateKind::Msrs => state.msrs = msrs::save(vcpu, &context.msrs)?,
                StateKind::VcpuEvents => state.events = vcpu.get_vcpu_events().map_err(get)?,
                _ => {}
            }
        }
        if let Some(deadline) = deadline {
            state.set_deadline(deadline);
        }
        Ok(state)
    }

    /// Replaces the deadline that was read after the local APIC by the one that was read before it.
    fn set_deadline(&mut self, deadline: u64) {
        let tsc = self.msr(TSC).unwrap_or(0);
        let deadline = lapic_timer::deadline_to_save(deadline, tsc, self.lapic.bytes());
        if let Some((_, value)) = self
            .msrs
            .iter_mut()
            .find(|(index, _)| *index == TSC_DEADLINE)
        {
            *value = deadline;
        }
    }

    /// Sets the state of a vCPU that has not run, except its time. `blank` is its present state: parts that are equal
    /// are not set.
    pub fn restore(
        &self,
        vcpu: &VcpuFd,
        blank: &Self,
        context: &VcpuContext,
        calls: &mut CallCount,
    ) -> Result<(), SnapshotError> {
        use StateKind::*;
        let set = SnapshotError::set;
        // Before the MSRs: the TSC counts in this frequency.
        let khz = tsc::frequency_to_set(self.tsc_khz, blank.tsc_khz, context.scales_tsc)?;
        if let Some(khz) = khz {
            calls.ioctl(|| vcpu.set_tsc_khz(khz)).map_err(set(TscKhz))?;
        }
        if self.mp_state != blank.mp_state {
            calls
                .ioctl(|| vcpu.set_mp_state(self.mp_state))
                .map_err(set(MpState))?;
        }
        calls
            .ioctl(|| vcpu.set_regs(&self.regs))
            .map_err(set(Regs))?;
        // After the memory: with PAE paging KVM reads four page-directory-pointer entries at CR3.
        calls
            .ioctl(|| vcpu.set_sregs(&self.sregs))
            .map_err(set(Sregs))?;
        self.restore_fpu(vcpu, blank, context.xsave, calls)?;
        if self.debug_regs != blank.debug_regs {
            calls
                .ioctl(|| vcpu.set_debug_regs(&self.debug_regs))
                .map_err(set(DebugRegs))?;
        }
        // After SREGS: its APIC base selects x2APIC mode, which decides the layout of the registers.
        if self.lapic != blank.lapic {
            let lapic = self.lapic();
            calls.ioctl(|| vcpu.set_lapic(&lapic)).map_err(set(Lapic))?;
        }
        msrs::restore(vcpu, msrs::changed(&self.msrs, &blank.msrs), calls)?;
        // After REGS, which clears a pending exception.
        if self.events != blank.events {
            calls
                .ioctl(|| vcpu.set_vcpu_events(&self.events))
                .map_err(set(VcpuEvents))?;
        }
        self.mark_stopped(vcpu, calls)
    }

    /// Sets the flag in the kvmclock page that tells the guest's watchdogs that it was stopped. Call it after the MSRs,
    /// which give KVM the address of the page.
    fn mark_stopped(&self, vcpu: &VcpuFd, calls: &mut CallCount) -> Result<(), SnapshotError> {
        if !self.has_kvmclock() {
            return Ok(());
        }
        match calls.ioctl(|| vcpu.kvmclock_ctrl()) {
            // EINVAL: the guest has not registered a page.
            Err(error) if error.errno() != libc::EINVAL => {
                Err(SnapshotError::set(StateKind::KvmclockCtrl)(error))
            }
            _ => Ok(()),
        }
    }

    /// Sets TSC and TSC deadline of vCPU `index` to the saved values. Call it for vCPU 0 first, and after
    /// [`VcpuState::restore`], whose KVM_SET_LAPIC would cancel the timer.
    pub fn restore_time(&self, index: usize, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        let far_off = self.far_off_tsc().filter(|_| index == 0);
        let time = self.msrs.iter().copied().filter(is_time);
        let mut uncounted = CallCount::default();
        msrs::restore(vcpu, far_off.into_iter().chain(time), &mut uncounted)
    }

    fn restore_fpu(
        &self,
        vcpu: &VcpuFd,
        blank: &Self,
        xsave_size: XsaveSize,
        calls: &mut CallCount,
    ) -> Result<(), SnapshotError> {
        if self.xsave != blank.xsave {
            calls.ioctl(|| xsave_size.restore(vcpu, &self.xsave))?;
        }
        if self.xcrs != blank.xcrs {
            calls
                .ioctl(|| vcpu.set_xcrs(&self.xcrs))
                .map_err(SnapshotError::set(StateKind::Xcrs))?;
        }
        Ok(())
    }

    /// A TSC value far from the saved one, to write before the saved one.
    ///
    /// KVM treats a TSC write within one second of the expected value as a request to synchronize vCPUs and keeps the
    /// old offset (Linux, arch/x86/kvm/x86.c, kvm_synchronize_tsc). For vCPU 0 the old offset is wrong: if the blank VM
    /// happens to be about as old as the guest, its TSC would be up to a second off. The far value prevents the
    /// synchronization. The other vCPUs want it.
    fn far_off_tsc(&self) -> Option<(u32, u64)> {
        Some((TSC, self.msr(TSC)? ^ 1 << 62))
    }

    /// True if the guest has enabled kvmclock: bit 0 of MSR_KVM_SYSTEM_TIME_NEW or of the older MSR_KVM_SYSTEM_TIME
    /// (Linux, arch/x86/include/uapi/asm/kvm_para.h).
    fn has_kvmclock(&self) -> bool {
        const SYSTEM_TIME: [u32; 2] = [0x12, 0x4b56_4d01];
        self.msrs
            .iter()
            .any(|(index, value)| SYSTEM_TIME.contains(index) && value & 1 != 0)
    }

    fn msr(&self, index: u32) -> Option<u64> {
        let msr = self.msrs.iter().find(|msr| msr.0 == index);
        msr.map(|(_, value)| *value)
    }

    fn lapic(&self) -> kvm_lapic_state {
        let mut lapic = kvm_lapic_state::default();
        for (to, from) in lapic.regs.iter_mut().zip(self.lapic.bytes()) {
            *to = *from as _;
        }
        lapic
    }
}

/// True for the MSRs that hold guest time. A deadline of zero means that no timer is armed.
fn is_time((index, value): &(u32, u64)) -> bool {
    *index == TSC || *index == TSC_DEADLINE && *value != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_read_before_lapic_and_other_msrs_after() {
        let place = |kind| SAVE_ORDER.iter().position(|other| *other == kind).unwrap();
        assert_eq!(place(StateKind::MpState), 0);
        assert!(place(StateKind::TscDeadline) < place(StateKind::Lapic));
        assert!(place(StateKind::Lapic) < place(StateKind::Msrs));
    }

    #[test]
    fn a_deadline_that_expires_during_the_save_is_kept() {
        // The deadline was read before LAPIC, with no interrupt in IRR; the MSRs after the timer expired.
        let mut state = VcpuState {
            msrs: vec![(TSC, 1000), (TSC_DEADLINE, 0)],
            ..VcpuState::default()
        };
        state.set_deadline(990);
        assert_eq!(state.msr(TSC_DEADLINE), Some(990));
    }
}
