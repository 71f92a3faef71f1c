//! The state of one vCPU.

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Xsave, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use super::blob::Blob;
use super::msrs::{self, MsrPolicy};
use super::{SnapshotError, StateKind, Trace};

/// Words of `struct kvm_xsave` before its flexible array (Linux, arch/x86/include/uapi/asm/kvm.h).
const XSAVE_WORDS: usize = 1024;

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;

/// How large the XSAVE area of this host is (KVM_CAP_XSAVE2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XsaveSize {
    /// Words beyond [`XSAVE_WORDS`]: not zero where the guest may have AMX.
    extra: usize,
}

impl XsaveSize {
    /// Of this VM. A KVM before 5.17 has none to tell, and 4096 bytes.
    pub fn of(vm: &VmFd) -> Self {
        let bytes = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        Self {
            extra: bytes.div_ceil(4).saturating_sub(XSAVE_WORDS),
        }
    }

    fn area(self) -> Xsave {
        Xsave::new(self.extra).expect("the kernel's size of an XSAVE area is some kilobytes")
    }
}

/// All that KVM keeps of a vCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// As set, before what the guest's own settings change in it.
    pub(crate) cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
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

impl VcpuState {
    /// Reads the state of a paused vCPU, which was given this CPUID.
    pub fn save(
        vcpu: &VcpuFd,
        cpuid: &CpuId,
        policy: &MsrPolicy,
        xsave_size: XsaveSize,
    ) -> Result<Self, SnapshotError> {
        use StateKind::*;
        let get = SnapshotError::get;
        // First: reading it lets KVM take up a pending INIT or SIPI, which changes the registers.
        let mp_state = vcpu.get_mp_state().map_err(get(MpState))?;
        let mut xsave = xsave_size.area();
        // SAFETY: the area has the size that KVM_CAP_XSAVE2 gave for this VM, and at least 4096 bytes.
        unsafe { vcpu.get_xsave2(&mut xsave) }.map_err(get(Xsave))?;
        let region = xsave.as_fam_struct_ref().xsave.region;
        let words = region.into_iter().chain(xsave.as_slice().iter().copied());
        Ok(Self {
            cpuid: cpuid.as_slice().to_vec(),
            // Not every host knows it; 0 is then its own business at the restore too.
            tsc_khz: vcpu.get_tsc_khz().unwrap_or(0),
            mp_state,
            regs: vcpu.get_regs().map_err(get(Regs))?,
            sregs: vcpu.get_sregs().map_err(get(Sregs))?,
            xsave: Blob::from_words(words),
            xcrs: vcpu.get_xcrs().map_err(get(Xcrs))?,
            debug_regs: vcpu.get_debug_regs().map_err(get(DebugRegs))?,
            lapic: Blob::new(
                &vcpu
                    .get_lapic()
                    .map_err(get(Lapic))?
                    .regs
                    .map(|byte| byte as u8),
            ),
            msrs: msrs::save(vcpu, policy)?,
            events: vcpu.get_vcpu_events().map_err(get(VcpuEvents))?,
        })
    }

    /// Sets the state of a vCPU that has not run, and whose state is `now`, but for its time: what has the
    /// right value already is not set again.
    pub fn restore(
        &self,
        vcpu: &VcpuFd,
        now: &Self,
        xsave_size: XsaveSize,
        trace: &mut Trace,
    ) -> Result<(), SnapshotError> {
        use StateKind::*;
        let set = SnapshotError::set;
        // Before all else: it says which registers there are. A vCPU that has run takes no other.
        if self.cpuid != now.cpuid {
            let cpuid = self.cpuid()?;
            trace
                .ioctl(|| vcpu.set_cpuid2(&cpuid))
                .map_err(set(Cpuid))?;
        }
        // Before the MSRs, for the TSC counts in it.
        if self.tsc_khz != now.tsc_khz && self.tsc_khz != 0 {
            trace
                .ioctl(|| vcpu.set_tsc_khz(self.tsc_khz))
                .map_err(set(TscKhz))?;
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
        self.restore_fpu(vcpu, now, xsave_size, trace)?;
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
        msrs::restore(vcpu, self.changed_msrs(now), trace)?;
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
        let (index, value) = *self.msrs.iter().find(|(index, _)| *index == TSC)?;
        Some((index, value ^ 1 << 62))
    }

    /// Those that differ from `now`, but for those that tell the time.
    fn changed_msrs(&self, now: &Self) -> impl Iterator<Item = (u32, u64)> {
        let mut known = now.msrs.iter().peekable();
        self.msrs.iter().copied().filter(move |(index, value)| {
            // Both are in ascending order.
            while known.next_if(|(other, _)| other < index).is_some() {}
            let same = known
                .peek()
                .is_some_and(|(other, now)| other == index && now == value);
            !same && !matches!(*index, TSC | TSC_DEADLINE)
        })
    }

    /// Whether the guest has given KVM a page for its clock: MSR_KVM_SYSTEM_TIME_NEW and the older
    /// MSR_KVM_SYSTEM_TIME (Linux, arch/x86/include/uapi/asm/kvm_para.h), with the enabling bit.
    fn has_kvmclock(&self) -> bool {
        const SYSTEM_TIME: [u32; 2] = [0x12, 0x4b56_4d01];
        self.msrs
            .iter()
            .any(|(index, value)| SYSTEM_TIME.contains(index) && value & 1 != 0)
    }

    fn cpuid(&self) -> Result<CpuId, SnapshotError> {
        CpuId::from_entries(&self.cpuid).map_err(|_| SnapshotError::Incomplete {
            what: "CPUID leaves",
            have: self.cpuid.len(),
            need: KVM_MAX_CPUID_ENTRIES,
        })
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
