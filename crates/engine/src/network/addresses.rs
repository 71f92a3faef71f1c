//! Addresses for VMs: unique among running VMs, and not reused at once.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;

/// An address range that cannot serve VMs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// It cannot be parsed.
    #[error(
        "`{0}` is not an address range; use A.B.C.D/N, A.B.C.D with a mask, or A.B.C.D-E.F.G.H with a mask"
    )]
    Syntax(String),
    /// The mask cannot be parsed.
    #[error("`{0}` is not a mask; use a prefix length such as 16 or a mask such as 255.255.0.0")]
    Mask(String),
    /// The range has no mask.
    #[error("`{0}` has no mask; write A.B.C.D/N or set `network.mask` (IP_MASK)")]
    NoMask(String),
    /// The engine chooses the range, and its mask.
    #[error("`network.mask` (IP_MASK) needs a `network.range` (IP_RANGE) other than `auto`")]
    MaskOfAuto,
    /// It has no room for the bridge and one VM.
    #[error("`{0}` has no room for the bridge and a VM; use a prefix of 30 or less")]
    TooSmall(String),
}

/// The value of `network.bridge` and `network.range` that leaves the choice to the engine.
pub const AUTO: &str = "auto";

/// Checks `network.range` with `network.mask`.
pub fn validate_range(range: &str, mask: Option<&str>) -> Result<(), RangeError> {
    match mask {
        None if range == AUTO => Ok(()),
        Some(_) if range == AUTO => Err(RangeError::MaskOfAuto),
        mask => Range::parse(range, mask).map(drop),
    }
}

/// A subnet: its first host address is the bridge's, the rest of it, or a part, is for VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The subnet's address.
    pub network: Ipv4Addr,
    /// Its prefix length, 8 to 30.
    pub prefix_len: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    first: u32,
    last: u32,
}

impl Range {
    /// Reads `A.B.C.D/N`, or `A.B.C.D` or `A.B.C.D-E.F.G.H` with a mask.
    pub fn parse(range: &str, mask: Option<&str>) -> Result<Self, RangeError> {
        let syntax = || RangeError::Syntax(range.to_owned());
        let (addresses, own_mask) = match range.split_once('/') {
            Some((addresses, mask)) => (addresses, Some(mask)),
            None => (range, None),
        };
        let mask = own_mask
            .or(mask)
            .ok_or_else(|| RangeError::NoMask(range.to_owned()))?;
        let prefix_len = parse_mask(mask).ok_or_else(|| RangeError::Mask(mask.to_owned()))?;
        if !(8..=30).contains(&prefix_len) {
            return Err(RangeError::TooSmall(range.to_owned()));
        }
        let (start, end) = match addresses.split_once('-') {
            Some((start, end)) => (start, Some(end)),
            None => (addresses, None),
        };
        let start: Ipv4Addr = start.trim().parse().map_err(|_| syntax())?;
        let netmask = u32::MAX << (32 - prefix_len);
        let network = u32::from(start) & netmask;
        let (lowest, highest) = (network + 2, (network | !netmask) - 1);
        let (first, last) = match end {
            Some(end) => {
                let end: Ipv4Addr = end.trim().parse().map_err(|_| syntax())?;
                (u32::from(start).max(lowest), u32::from(end).min(highest))
            }
            None => (lowest, highest),
        };
        if first > last {
            return Err(RangeError::TooSmall(range.to_owned()));
        }
        Ok(Range {
            network: network.into(),
            prefix_len,
            gateway: (network + 1).into(),
            first,
            last,
        })
    }

    /// The number of addresses for VMs.
    pub fn capacity(&self) -> usize {
        (self.last - self.first + 1) as usize
    }

    /// The subnet.
    pub fn net(&self) -> Ipv4Net {
        // `parse` admits no prefix that is too long.
        Ipv4Net::new_assert(self.network, self.prefix_len)
    }

    /// The subnet as `A.B.C.D/N`.
    pub fn cidr(&self) -> String {
        format!("{}/{}", self.network, self.prefix_len)
    }
}

fn parse_mask(text: &str) -> Option<u8> {
    let text = text.trim().trim_start_matches('/');
    if let Ok(length) = text.parse::<u8>() {
        return (length <= 32).then_some(length);
    }
    let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
    (mask.leading_ones() == mask.count_ones()).then(|| mask.count_ones() as u8)
}

/// Every address of the range is taken.
#[derive(Debug, thiserror::Error)]
#[error("all {0} addresses of the range are in use; use a larger `network.range`")]
pub struct Exhausted(usize);

/// Gives out addresses in ascending order, and starts again at the first.
#[derive(Clone, Debug)]
pub struct AddressPool {
    range: Range,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    taken: HashSet<u32>,
    next: u32,
}

impl AddressPool {
    /// A pool that goes on after `last_used`, so that a restart does not repeat recent addresses.
    pub fn new(range: Range, last_used: Option<Ipv4Addr>) -> Self {
        let next = last_used
            .map(|ip| u32::from(ip).wrapping_add(1))
            .filter(|next| (range.first..=range.last).contains(next))
            .unwrap_or(range.first);
        AddressPool {
            range,
            state: Arc::new(Mutex::new(State {
                taken: HashSet::new(),
                next,
            })),
        }
    }

    /// The range.
    pub fn range(&self) -> &Range {
        &self.range
    }

    /// Takes the next free address; it is free again when the lease is dropped.
    pub fn lease(&self) -> Result<Lease, Exhausted> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.taken.len() >= self.range.capacity() {
            return Err(Exhausted(self.range.capacity()));
        }
        let mut candidate = state.next;
        while state.taken.contains(&candidate) {
            candidate = self.after(candidate);
        }
        state.taken.insert(candidate);
        state.next = self.after(candidate);
        Ok(Lease {
            ip: candidate.into(),
            state: Arc::clone(&self.state),
        })
    }

    fn after(&self, address: u32) -> u32 {
        if address >= self.range.last {
            self.range.first
        } else {
            address + 1
        }
    }
}

/// An address in use.
#[derive(Debug)]
pub struct Lease {
    ip: Ipv4Addr,
    state: Arc<Mutex<State>>,
}

impl Lease {
    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The MAC address of the VM, derived from its IP address.
    pub fn mac(&self) -> [u8; 6] {
        mac_of(self.ip)
    }
}

/// A locally administered MAC address (bit 1 of the first byte) that ends with the IP address.
pub fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0xc1, a, b, c, d]
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken
            .remove(&self.ip.into());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_a_range_is_read() {
        let whole = Range::parse("172.30.0.0/16", None).unwrap();
        assert_eq!(whole.gateway.to_string(), "172.30.0.1");
        assert_eq!(whole.capacity(), 65533);
        assert_eq!(Range::parse("172.30.0.0", Some("16")).unwrap(), whole);
        assert_eq!(
            Range::parse("172.30.0.0", Some("255.255.0.0")).unwrap(),
            whole
        );
        let part = Range::parse("10.0.0.10-10.0.0.19", Some("/24")).unwrap();
        assert_eq!(
            (part.capacity(), part.gateway.to_string()),
            (10, "10.0.0.1".to_owned())
        );
    }

    #[test]
    fn an_invalid_range_is_refused_with_the_reason() {
        let table = [
            ("172.30.0.0", None, "no mask"),
            ("172.30.0/16", None, "not an address range"),
            ("172.30.0.0", Some("255.0.255.0"), "not a mask"),
            ("172.30.0.0/31", None, "no room"),
            ("10.0.0.9-10.0.0.5", Some("24"), "no room"),
        ];
        for (range, mask, part) in table {
            let error = Range::parse(range, mask).unwrap_err().to_string();
            assert!(error.contains(part), "{range}: {error}");
        }
    }

    #[test]
    fn a_restart_continues_after_the_last_address() {
        let range = Range::parse("10.0.0.0/29", None).unwrap();
        let last = AddressPool::new(range, None).lease().unwrap().ip();
        assert_ne!(
            AddressPool::new(range, Some(last)).lease().unwrap().ip(),
            last
        );
    }

    #[test]
    fn an_address_is_not_the_next_one_again() {
        let pool = AddressPool::new(Range::parse("10.0.0.0/29", None).unwrap(), None);
        let first = pool.lease().unwrap().ip();
        assert_ne!(pool.lease().unwrap().ip(), first);
    }

    proptest! {
        #[test]
        fn living_leases_are_distinct_and_inside(steps in proptest::collection::vec(any::<Option<u8>>(), 0..400)) {
            let range = Range::parse("10.1.2.0/28", None).unwrap();
            let pool = AddressPool::new(range, None);
            let mut held: Vec<Lease> = Vec::new();
            for step in steps {
                match step {
                    Some(index) if !held.is_empty() => {
                        let index = usize::from(index) % held.len();
                        held.swap_remove(index);
                    }
                    _ => match pool.lease() {
                        Ok(lease) => held.push(lease),
                        Err(_) => prop_assert_eq!(held.len(), range.capacity()),
                    },
                }
                let ips: HashSet<_> = held.iter().map(Lease::ip).collect();
                let macs: HashSet<_> = held.iter().map(Lease::mac).collect();
                prop_assert_eq!(ips.len(), held.len());
                prop_assert_eq!(macs.len(), held.len());
                for ip in ips {
                    prop_assert!(ip != range.gateway && (range.first..=range.last).contains(&u32::from(ip)));
                }
            }
        }
    }
}
