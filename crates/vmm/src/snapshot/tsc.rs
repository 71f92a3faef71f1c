//! Compares a snapshot's TSC frequency with the host's.

use super::error::Mismatch;

/// The largest difference between two frequencies that count as equal, in ppm: KVM's default `tsc_tolerance_ppm`.
/// Linux calibrates the TSC at each boot of the host, and results differ by some 100 kHz.
const TOLERANCE_PPM: u64 = 250;

/// The frequency to set with KVM_SET_TSC_KHZ on a vCPU of `here` kHz that continues at `saved` kHz, or `None` if the
/// two are equal within the tolerance. 0 means that KVM did not report the frequency.
///
/// `scales` is KVM_CAP_TSC_CONTROL: the processor can scale the TSC.
pub fn frequency_to_set(saved: u32, here: u32, scales: bool) -> Result<Option<u32>, Mismatch> {
    let apart = u64::from(saved.abs_diff(here)) * 1_000_000;
    if saved == 0 || here == 0 || apart <= TOLERANCE_PPM * u64::from(saved) {
        return Ok(None);
    }
    if scales {
        return Ok(Some(saved));
    }
    Err(Mismatch {
        part: "TSC frequency",
        saved: format!("{saved} kHz"),
        here: format!(
            "{here} kHz, more than {TOLERANCE_PPM} ppm apart, and this processor cannot scale the TSC (KVM_CAP_TSC_CONTROL)"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: u32 = 2_600_000;
    /// 250 ppm of [`SAVED`], in kHz.
    const TOLERANCE: u32 = 650;

    #[test]
    fn frequencies_within_the_tolerance_are_equal() {
        for here in [SAVED - TOLERANCE, SAVED, SAVED + TOLERANCE] {
            assert_eq!(frequency_to_set(SAVED, here, false), Ok(None));
            assert_eq!(frequency_to_set(SAVED, here, true), Ok(None));
        }
    }

    #[test]
    fn another_frequency_is_set_if_the_processor_scales() {
        let here = SAVED + TOLERANCE + 1;
        assert_eq!(frequency_to_set(SAVED, here, true), Ok(Some(SAVED)));
    }

    #[test]
    fn another_frequency_is_refused_without_scaling() {
        let error = frequency_to_set(SAVED, 2_400_000, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the snapshot does not fit this machine: TSC frequency saved 2600000 kHz, here 2400000 kHz, more than 250 ppm apart, and this processor cannot scale the TSC (KVM_CAP_TSC_CONTROL)"
        );
    }

    #[test]
    fn an_unknown_frequency_is_not_set() {
        assert_eq!(frequency_to_set(0, SAVED, true), Ok(None));
        assert_eq!(frequency_to_set(SAVED, 0, false), Ok(None));
    }
}
