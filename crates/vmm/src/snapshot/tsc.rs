//! Whether a snapshot's TSC frequency fits a host.

use super::key::Mismatch;

/// How far two frequencies may be apart, in millionths. KVM itself takes them for equal then (its parameter
/// `tsc_tolerance_ppm`): Linux measures the frequency anew at each boot of the host, with differences of some 100
/// kHz.
const TOLERANCE_PPM: u64 = 250;

/// The frequency to set with KVM_SET_TSC_KHZ on a vCPU that has `here` kHz, so that it can go on from `saved` kHz;
/// `None` to leave it alone. 0 is a frequency that KVM did not report.
///
/// `scales` is KVM_CAP_TSC_CONTROL: the processor multiplies the TSC for its guests.
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
    /// 250 ppm of it.
    const TOLERANCE: u32 = 650;

    #[test]
    fn another_calibration_of_the_same_host_changes_nothing() {
        for here in [SAVED - TOLERANCE, SAVED, SAVED + TOLERANCE] {
            assert_eq!(frequency_to_set(SAVED, here, false), Ok(None));
            assert_eq!(frequency_to_set(SAVED, here, true), Ok(None));
        }
    }

    #[test]
    fn another_frequency_is_set_where_the_processor_scales() {
        let here = SAVED + TOLERANCE + 1;
        assert_eq!(frequency_to_set(SAVED, here, true), Ok(Some(SAVED)));
    }

    #[test]
    fn another_frequency_is_refused_with_both_numbers_elsewhere() {
        let error = frequency_to_set(SAVED, 2_400_000, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the snapshot does not fit this machine: TSC frequency saved 2600000 kHz, here 2400000 kHz, more than 250 ppm apart, and this processor cannot scale the TSC (KVM_CAP_TSC_CONTROL)"
        );
    }

    #[test]
    fn a_frequency_that_kvm_does_not_know_is_left_alone() {
        assert_eq!(frequency_to_set(0, SAVED, true), Ok(None));
        assert_eq!(frequency_to_set(SAVED, 0, false), Ok(None));
    }
}
