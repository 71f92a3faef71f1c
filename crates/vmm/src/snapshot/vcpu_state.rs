//! The state of one vCPU.

use kvm_bindings::{
    Xsave, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use super::blob::Blob;
use super::msrs::{self, MsrPolicy, TSC, TSC_DEADLINE};
use super::{SnapshotError, StateKind, Trace, lapic_timer, tsc};

/// Words of `struct kvm_xsave` before its flexible array (Linux, arch/x86/include/uapi/asm/kvm.h).
const XSAVE_WORDS: usize = 1024;
/// The word of an XSAVE area with the low half of XSTATE_BV: the components that are not in their initial state.
const XSTATE_BV: usize = 512 / 4;

/// How a host's KVM gives the XSAVE area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XsaveSize {
    /// KVM_GET_XSAVE2 exists (Linux 5.17). Without it the area is that of KVM_GET_XSAVE, 4096 bytes.
    xsave2: bool,
    /// Words beyond [`XSAVE_WORDS`]: not zero where the process asked for AMX.
    extra: usize,
}

impl XsaveSize {
    /// Of this VM (KVM_CAP_XSAVE2).
    pub fn of(vm: &VmFd) -> Self {
        Self::new(vm.check_extension_int(Cap::Xsave2))
    }

    /// Of the capability's value: the area's size in bytes, and 0 or less without the capability.
    fn new(capability: i32) -> Self {
        let bytes = usize::try_from(capability).unwrap_or(0);
        Self {
            xsave2: bytes > 0,
            extra: bytes.div_ceil(4).saturating_sub(XSAVE_WORDS),
        }
    }

    fn area(self) -> Xsave {
        Xsave::new(self.extra).expect("the kernel's size of an XSAVE area is some kilobytes")
    }

    fn read(self, vcpu: &VcpuFd) -> Result<Vec<u32>, kvm_ioctls::Error> {
        if !self.xsave2 {
            return Ok(vcpu.get_xsave()?.region.to_vec());
        }
        let mut area = self.area();
        // SAFETY: the area has the size that KVM_CAP_XSAVE2 gave for this VM, and at least 4096 bytes.
        unsafe { vcpu.get_xsave2(&mut area) }?;
        let mut words = area.as_fam_struct_ref().xsave.region.to_vec();
        words.extend(area.as_slice());
        Ok(words)
    }
}

/// What reading and writing a vCPU's state depends on beyond the vCPU.
#[derive(Clone, Debug)]
pub struct VcpuContext {
    /// The model-specific registers to save.
    pub msrs: MsrPolicy,
    /// The XSAVE area.
    pub xsave: XsaveSize,
    /// The XSAVE components that the guest can use, as bits of XCR0.
    pub xsave_components: u64,
    /// KVM_CAP_TSC_CONTROL: the processor can give a guest a TSC of another frequency.
    pub scales_tsc: bool,
}

/// All that KVM keeps of a vCPU but its CPUID, which is part of the snapshot's key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VcpuState {
    /// The TSC's frequency in kHz, or 0 if KVM does not know it.
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
/// MP_STATE comes first: KVM takes up a pending INIT or SIPI when it is read, and that changes registers.
///
/// The TSC deadline comes before LAPIC, the other MSRs after it. KVM may let the timer expire between any two of
/// these requests, and then clears the deadline and sets the interrupt's bit in the local APIC. In this order the
/// record has the deadline, the bit or both; in the other it could have neither, and every fork would wait for an
/// interrupt that never comes. One interrupt too many is harmless.
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
                // Not every host knows it.
                StateKind::TscKhz => state.tsc_khz = vcpu.get_tsc_khz().unwrap_or(0),
                StateKind::TscDeadline => deadline = msrs::read(vcpu, TSC_DEADLINE)?,
                StateKind::Regs => state.regs = vcpu.get_regs().map_err(get)?,
                StateKind::Sregs => state.sregs = vcpu.get_sregs().map_err(get)?,
                StateKind::Xsave => {
                    let mut words = context.xsave.read(vcpu).map_err(get)?;
                    keep_components(&mut words, context.xsave_components);
                    state.xsave = Blob::from_words(words.into_iter());
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

    /// Puts the deadline that was read before the local APIC in the place of the one that was read after it.
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

    /// Sets the state of a vCPU that has not run, and whose state is `now`, but for its time: what has the
    /// right value already is not set again.
    pub fn restore(
        &self,
        vcpu: &VcpuFd,
        now: &Self,
        context: &VcpuContext,
        trace: &mut Trace,
    ) -> Result<(), SnapshotError> {
        use StateKind::*;
        let set = SnapshotError::set;
        // Before the MSRs, for the TSC counts in it.
        let khz = tsc::frequency_to_set(self.tsc_khz, now.tsc_khz, context.scales_tsc)?;
        if let Some(khz) = khz {
            trace.ioctl(|| vcpu.set_tsc_khz(khz)).map_err(set(TscKhz))?;
        }
        if self.mp_state != now.mp_state {
            trace
                .ioctl(|| vcpu.set_mp_state(self.mp_state))
                .map_err(set(MpState))?;
        }
        trace
            .ioctl(|| vcpu.set_regs(&self.regs))
            .map_err(set(Regs))?;
        // The memory is there: where the guest uses PAE paging KVM reads four entries from CR3.
        trace
            .ioctl(|| vcpu.set_sregs(&self.sregs))
            .map_err(set(Sregs))?;
        trace.step("vCPU: MP_STATE, REGS, SREGS");
        self.restore_fpu(vcpu, now, context.xsave, trace)?;
        if self.debug_regs != now.debug_regs {
            trace
                .ioctl(|| vcpu.set_debug_regs(&self.debug_regs))
                .map_err(set(DebugRegs))?;
        }
        trace.step("vCPU: XSAVE, XCRS, DEBUGREGS");
        // After SREGS: their APIC base says whether it is an x2APIC, and so what the registers mean.
        if self.lapic != now.lapic {
            let lapic = self.lapic();
            trace.ioctl(|| vcpu.set_lapic(&lapic)).map_err(set(Lapic))?;
        }
        trace.step("vCPU: LAPIC");
        msrs::restore(vcpu, msrs::changed(&self.msrs, &now.msrs), trace)?;
        trace.step("vCPU: MSRS");
        // After REGS, which clear a pending exception.
        if self.events != now.events {
            trace
                .ioctl(|| vcpu.set_vcpu_events(&self.events))
                .map_err(set(VcpuEvents))?;
        }
        // After the MSR that gives KVM the clock's page. The guest then knows that it was stopped and
        // not stuck. Refused where the guest has no such page, which needs no telling.
        if self.has_kvmclock() {
            match trace.ioctl(|| vcpu.kvmclock_ctrl()) {
                Err(error) if error.errno() != libc::EINVAL => {
                    return Err(set(KvmclockCtrl)(error));
                }
                _ => {}
            }
        }
        trace.step("vCPU: VCPU_EVENTS, KVMCLOCK_CTRL");
        Ok(())
    }

    /// Sets the time of vCPU `index` to that at which it was saved: the TSC, and the timer that waits for it.
    /// vCPU 0 comes first, and all of it after [`VcpuState::restore`], whose LAPIC would stop the timer.
    pub fn restore_time(&self, index: usize, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        let far_off = self.far_off_tsc().filter(|_| index == 0);
        let time = self.msrs.iter().copied().filter(tells_time);
        msrs::restore(vcpu, far_off.into_iter().chain(time), &mut Trace::start())
    }

    fn restore_fpu(
        &self,
        vcpu: &VcpuFd,
        now: &Self,
        xsave_size: XsaveSize,
        trace: &mut Trace,
    ) -> Result<(), SnapshotError> {
        let set = SnapshotError::set;
        if self.xsave != now.xsave {
            let xsave = self.xsave(xsave_size)?;
            let set_xsave = || {
                // SAFETY: the area has the size that KVM_CAP_XSAVE2 gave for this VM, or more.
                unsafe { vcpu.set_xsave2(&xsave) }
            };
            trace.ioctl(set_xsave).map_err(set(StateKind::Xsave))?;
        }
        if self.xcrs != now.xcrs {
            trace
                .ioctl(|| vcpu.set_xcrs(&self.xcrs))
                .map_err(set(StateKind::Xcrs))?;
        }
        Ok(())
    }

    /// What to set the TSC to before it is set to what it was.
    ///
    /// KVM takes a TSC within a second of what it expects for an attempt to synchronize vCPUs, and then
    /// gives all the offset that they have (Linux, arch/x86/kvm/x86.c, kvm_synchronize_tsc). That is right
    /// for every vCPU but the first, whose TSC would go back, or a second ahead, where a shell happens to be
    /// about as old as the guest. From a value this far off nothing is synchronized.
    fn far_off_tsc(&self) -> Option<(u32, u64)> {
        Some((TSC, self.msr(TSC)? ^ 1 << 62))
    }

    /// Whether the guest has given KVM a page for its clock: MSR_KVM_SYSTEM_TIME_NEW and the older
    /// MSR_KVM_SYSTEM_TIME (Linux, arch/x86/include/uapi/asm/kvm_para.h), with the enabling bit.
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

    fn xsave(&self, size: XsaveSize) -> Result<Xsave, SnapshotError> {
        let mut area = size.area();
        let have = self.xsave.bytes().len().div_ceil(4);
        if have > XSAVE_WORDS + size.extra {
            return Err(SnapshotError::Incomplete {
                what: "words of XSAVE",
                have,
                need: XSAVE_WORDS + size.extra,
            });
        }
        let mut words = self.xsave.words();
        // SAFETY: the length of the flexible array is not changed.
        let region = unsafe { &mut area.as_mut_fam_struct().xsave.region };
        for (to, from) in region.iter_mut().zip(words.by_ref()) {
            *to = from;
        }
        for (to, from) in area.as_mut_slice().iter_mut().zip(words) {
            *to = from;
        }
        Ok(area)
    }
}

/// Whether a register has to be set for time to go on. A deadline of zero is none.
fn tells_time((index, value): &(u32, u64)) -> bool {
    *index == TSC || *index == TSC_DEADLINE && *value != 0
}

/// Marks all other components of an XSAVE area as being in their initial state. A KVM before 6.7 also gives
/// components that only the host has, and one that lacks them would refuse the area.
fn keep_components(area: &mut [u32], components: u64) {
    let halves = [components as u32, (components >> 32) as u32];
    for (word, half) in area[XSTATE_BV..].iter_mut().zip(halves) {
        *word &= half;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_read_before_the_local_apic_and_other_msrs_after_it() {
        let place = |kind| SAVE_ORDER.iter().position(|other| *other == kind).unwrap();
        assert_eq!(place(StateKind::MpState), 0);
        assert!(place(StateKind::TscDeadline) < place(StateKind::Lapic));
        assert!(place(StateKind::Lapic) < place(StateKind::Msrs));
    }

    #[test]
    fn a_deadline_that_passed_while_the_state_was_read_is_kept() {
        // Read before the local APIC, which had no interrupt yet; the MSRs were read after the timer's end.
        let mut state = VcpuState {
            msrs: vec![(TSC, 1000), (TSC_DEADLINE, 0)],
            ..VcpuState::default()
        };
        state.set_deadline(990);
        assert_eq!(state.msr(TSC_DEADLINE), Some(990));
    }

    #[test]
    fn a_kvm_without_xsave2_gives_4096_bytes() {
        for absent in [0, -1] {
            let size = XsaveSize::new(absent);
            assert_eq!((size.xsave2, size.extra), (false, 0));
        }
    }

    #[test]
    fn a_kvm_with_xsave2_gives_what_it_says() {
        assert_eq!(XsaveSize::new(4096).extra, 0);
        let amx = XsaveSize::new(11008);
        assert_eq!((amx.xsave2, amx.extra), (true, (11008 - 4096) / 4));
    }

    #[test]
    fn components_that_the_guest_cannot_use_are_not_saved() {
        let mut area = vec![0; XSAVE_WORDS];
        area[XSTATE_BV] = 0x2e7;
        area[XSTATE_BV + 1] = 1;
        keep_components(&mut area, 0b111);
        assert_eq!(area[XSTATE_BV..XSTATE_BV + 2], [0b111, 0]);
    }
}
