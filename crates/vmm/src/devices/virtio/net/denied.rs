//! Counts of dropped frames, in bounded memory.

use super::spec::{Denial, DeniedCount, DeniedReport};

/// The most kinds that are counted separately.
const KINDS: usize = 64;

/// Dropped frames by kind.
#[derive(Debug, Default)]
pub(super) struct Denials {
    report: DeniedReport,
}

impl Denials {
    /// Counts one frame. Costs at most [`KINDS`] comparisons.
    pub fn count(&mut self, denial: Denial) {
        let counts = &mut self.report.counts;
        if let Some(known) = counts.iter_mut().find(|count| count.denial == denial) {
            known.times = known.times.saturating_add(1);
        } else if counts.len() < KINDS {
            counts.push(DeniedCount { denial, times: 1 });
        } else {
            self.report.others = self.report.others.saturating_add(1);
        }
    }

    /// The counts so far.
    pub fn report(&self) -> DeniedReport {
        self.report.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::spec::{DenyReason, Protocol};
    use super::*;

    fn denial(number: u32) -> Denial {
        Denial {
            address: Some(IpAddr::V4(Ipv4Addr::from(number))),
            port: Some(80),
            protocol: Protocol::Ip(6),
            reason: DenyReason::Destination,
        }
    }

    #[test]
    fn equal_denials_are_one_entry() {
        let mut denials = Denials::default();
        denials.count(denial(1));
        denials.count(denial(2));
        denials.count(denial(1));
        let times: Vec<_> = denials.report().counts.iter().map(|c| c.times).collect();
        assert_eq!(times, [2, 1]);
    }

    #[test]
    fn a_scan_does_not_grow_the_table() {
        let mut denials = Denials::default();
        for number in 0..1000 {
            denials.count(denial(number));
        }
        let report = denials.report();
        assert_eq!((report.counts.len(), report.others), (KINDS, 936));
    }
}
