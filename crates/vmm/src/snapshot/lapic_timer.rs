//! The local APIC's timer in TSC-deadline mode (Intel SDM volume 3, 12.5.4.1).

/// Offsets of registers in the local APIC page.
const ISR: usize = 0x100;
const IRR: usize = 0x200;
const LVT_TIMER: usize = 0x320;
const MASKED: u32 = 1 << 16;
const MODE: u32 = 0b11 << 17;
const MODE_TSC_DEADLINE: u32 = 0b10 << 17;

/// The IA32_TSC_DEADLINE to save, given the value that KVM returned, the TSC, and the local APIC page without trailing
/// zeros.
///
/// An unmasked timer with neither a deadline nor an interrupt in IRR or ISR may have expired while the state was
/// read, and its interrupt may be lost. Saving the current TSC as its deadline raises the interrupt again. A spurious
/// timer interrupt is harmless.
pub fn deadline_to_save(deadline: u64, tsc: u64, lapic: &[u8]) -> u64 {
    let timer = register(lapic, LVT_TIMER);
    let armed = timer & MASKED == 0 && timer & MODE == MODE_TSC_DEADLINE;
    let vector = timer & 0xff;
    // 32 vectors in each register, 16 bytes apart.
    let is_set = |base| {
        let word = register(lapic, base + 16 * (vector / 32) as usize);
        word & 1 << (vector % 32) != 0
    };
    match deadline == 0 && armed && !is_set(IRR) && !is_set(ISR) {
        true => tsc,
        false => deadline,
    }
}

fn register(lapic: &[u8], offset: usize) -> u32 {
    let byte = |at: usize| u32::from(lapic.get(offset + at).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: u32 = 0xec;
    const NOW: u64 = 5000;

    fn lapic(timer: u32, pending_in: Option<usize>) -> Vec<u8> {
        let mut page = vec![0; 0x400];
        page[LVT_TIMER..LVT_TIMER + 4].copy_from_slice(&timer.to_le_bytes());
        if let Some(base) = pending_in {
            page[base + 16 * 7 + 1] = 1 << (VECTOR % 32 - 8);
        }
        page
    }

    #[test]
    fn a_timer_with_a_lost_interrupt_fires_at_once() {
        let lapic = lapic(MODE_TSC_DEADLINE | VECTOR, None);
        assert_eq!(deadline_to_save(0, NOW, &lapic), NOW);
    }

    #[test]
    fn a_deadline_is_saved_unchanged() {
        let lapic = lapic(MODE_TSC_DEADLINE | VECTOR, None);
        assert_eq!(deadline_to_save(6000, NOW, &lapic), 6000);
    }

    #[test]
    fn a_pending_interrupt_needs_no_deadline() {
        for base in [IRR, ISR] {
            let lapic = lapic(MODE_TSC_DEADLINE | VECTOR, Some(base));
            assert_eq!(deadline_to_save(0, NOW, &lapic), 0);
        }
    }

    #[test]
    fn a_masked_one_shot_or_periodic_timer_needs_no_deadline() {
        for timer in [
            MASKED | MODE_TSC_DEADLINE | VECTOR,
            0b01 << 17 | VECTOR,
            VECTOR,
        ] {
            assert_eq!(deadline_to_save(0, NOW, &lapic(timer, None)), 0);
        }
    }
}
