//! The flows that a guest has sent recently, in bounded memory.

use std::net::Ipv4Addr;

use super::packet::has_ports;
use super::spec::{Denial, DenyReason, Protocol};

/// Sets of the cache, each with [`WAYS`] flows: a power of two.
const SETS: usize = 128;
const WAYS: usize = 8;

/// Addresses are the guest's and the destination: only the latter differs between flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub destination: u32,
    pub protocol: u8,
    /// 0 where the protocol has no ports.
    pub source_port: u16,
    /// 0 where the protocol has no ports.
    pub destination_port: u16,
}

impl Flow {
    /// The denial of a flow beyond the rate.
    pub fn denial(self) -> Denial {
        Denial {
            address: Some(Ipv4Addr::from(self.destination).into()),
            port: has_ports(self.protocol).then_some(self.destination_port),
            protocol: Protocol::Ip(self.protocol),
            reason: DenyReason::Rate,
        }
    }

    /// A number for the flow that is not 0. Two flows with one number count as one: an attacker who finds such pairs
    /// opens a few flows more than the limit.
    fn key(self) -> u64 {
        let addresses = u64::from(self.destination) << 32
            | u64::from(self.source_port) << 16
            | u64::from(self.destination_port);
        // The finalizer of SplitMix64, a permutation of 64 bits.
        let mut x = addresses ^ u64::from(self.protocol).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).max(1)
    }
}

/// The last [`SETS`] * [`WAYS`] flows, about.
#[derive(Debug)]
pub(super) struct Flows {
    /// [`SETS`] sets of [`WAYS`] keys, the newest first; 0 is no flow.
    keys: Box<[[u64; WAYS]]>,
}

impl Flows {
    pub fn new() -> Self {
        Self {
            keys: vec![[0; WAYS]; SETS].into_boxed_slice(),
        }
    }

    /// True if the flow is in the cache, of whose set it becomes the newest.
    pub fn touch(&mut self, flow: Flow) -> bool {
        let key = flow.key();
        let set = self.set(key);
        if set[0] == key {
            return true;
        }
        match set.iter().position(|known| *known == key) {
            Some(place) => {
                set[..=place].rotate_right(1);
                true
            }
            None => false,
        }
    }

    /// Adds a flow in place of the oldest one of its set.
    pub fn add(&mut self, flow: Flow) {
        let key = flow.key();
        let set = self.set(key);
        set.rotate_right(1);
        set[0] = key;
    }

    fn set(&mut self, key: u64) -> &mut [u64; WAYS] {
        &mut self.keys[key as usize % SETS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source_port: u16) -> Flow {
        Flow {
            destination: 0x0808_0808,
            protocol: 17,
            source_port,
            destination_port: 53,
        }
    }

    #[test]
    fn a_flow_is_known_after_its_first_packet() {
        let mut flows = Flows::new();
        assert!(!flows.touch(flow(1)));
        flows.add(flow(1));
        assert!(flows.touch(flow(1)));
        assert!(!flows.touch(flow(2)));
        assert!(!flows.touch(Flow {
            protocol: 6,
            ..flow(1)
        }));
    }

    #[test]
    fn a_busy_flow_survives_many_others() {
        let mut flows = Flows::new();
        flows.add(flow(0));
        for port in 1..=u16::MAX {
            flows.add(flow(port));
            assert!(flows.touch(flow(0)), "after {port} others");
        }
    }
}
