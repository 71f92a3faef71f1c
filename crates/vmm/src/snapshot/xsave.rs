//! The XSAVE area of a vCPU: reading and writing it with any KVM.

use kvm_bindings::Xsave;
use kvm_ioctls::{Cap, VcpuFd, VmFd};

use super::blob::Blob;
use super::error::{SnapshotError, StateKind};

/// Words of `struct kvm_xsave` before its flexible array (Linux, arch/x86/include/uapi/asm/kvm.h).
const XSAVE_WORDS: usize = 1024;
/// The word of an XSAVE area with the low half of XSTATE_BV: the components that are not in their initial state.
const XSTATE_BV: usize = 512 / 4;

/// The size of the XSAVE area in KVM's ioctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XsaveSize {
    /// KVM_GET_XSAVE2 exists (Linux 5.17). Without it KVM_GET_XSAVE returns 4096 bytes.
    xsave2: bool,
    /// Words beyond [`XSAVE_WORDS`]; not zero if the process requested AMX.
    extra: usize,
}

impl XsaveSize {
    /// The size for this VM (KVM_CAP_XSAVE2).
    pub fn of(vm: &VmFd) -> Self {
        Self::new(vm.check_extension_int(Cap::Xsave2))
    }

    /// `capability` is the value of KVM_CAP_XSAVE2: bytes, or 0 or less without the capability.
    fn new(capability: i32) -> Self {
        let bytes = usize::try_from(capability).unwrap_or(0);
        Self {
            xsave2: bytes > 0,
            extra: bytes.div_ceil(4).saturating_sub(XSAVE_WORDS),
        }
    }

    fn area(self) -> Xsave {
        Xsave::new(self.extra).expect("an XSAVE area has some kilobytes")
    }

    /// Reads the area. Components other than `components` (bits of XCR0) are marked as initial.
    pub(super) fn save(self, vcpu: &VcpuFd, components: u64) -> Result<Blob, SnapshotError> {
        let get = SnapshotError::get(StateKind::Xsave);
        let mut words = self.read(vcpu).map_err(get)?;
        keep_components(&mut words, components);
        Ok(Blob::from_words(words.into_iter()))
    }

    fn read(self, vcpu: &VcpuFd) -> Result<Vec<u32>, kvm_ioctls::Error> {
        if !self.xsave2 {
            return Ok(vcpu.get_xsave()?.region.to_vec());
        }
        let mut area = self.area();
        // SAFETY: the area has the size that KVM_CAP_XSAVE2 reported for this VM, and at least 4096 bytes.
        unsafe { vcpu.get_xsave2(&mut area) }?;
        let mut words = area.as_fam_struct_ref().xsave.region.to_vec();
        words.extend(area.as_slice());
        Ok(words)
    }

    /// Writes the saved area.
    pub(super) fn restore(self, vcpu: &VcpuFd, saved: &Blob) -> Result<(), SnapshotError> {
        let area = self.fill(saved)?;
        // SAFETY: the area has the size that KVM_CAP_XSAVE2 reported for this VM, or more.
        unsafe { vcpu.set_xsave2(&area) }.map_err(SnapshotError::set(StateKind::Xsave))
    }

    fn fill(self, saved: &Blob) -> Result<Xsave, SnapshotError> {
        let have = saved.bytes().len().div_ceil(4);
        if have > XSAVE_WORDS + self.extra {
            return Err(SnapshotError::Incomplete {
                what: "words of XSAVE",
                have,
                need: XSAVE_WORDS + self.extra,
            });
        }
        let mut area = self.area();
        let mut words = saved.words();
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

/// Marks all other components as being in their initial state. KVM before 6.7 also returns components that only the
/// host uses, and a KVM that lacks one of them would refuse the area.
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
    fn the_area_has_4096_bytes_without_xsave2() {
        for absent in [0, -1] {
            let size = XsaveSize::new(absent);
            assert_eq!((size.xsave2, size.extra), (false, 0));
        }
    }

    #[test]
    fn the_area_has_the_size_of_xsave2() {
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

    #[test]
    fn an_area_that_is_too_large_for_this_kvm_is_refused() {
        let saved = Blob::from_words([1; XSAVE_WORDS + 1].into_iter());
        let error = XsaveSize::new(4096).fill(&saved).err().unwrap();
        assert!(matches!(error, SnapshotError::Incomplete { .. }));
    }
}
