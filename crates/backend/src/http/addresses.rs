//! The number of connections of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv6 address that one client cannot choose: it usually has a whole /64.
const PREFIX: u128 = !0 << 64;

/// Open connections by address.
#[derive(Debug)]
pub struct Addresses {
    /// Maximum of one address; 0: no limit.
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection of an address. Dropping it ends the count.
#[derive(Debug)]
pub struct AddressSlot {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    pub fn new(limit: usize) -> Self {
        Addresses {
            limit,
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection; `None` if the address has the maximum.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & PREFIX).into(),
            address => address,
        };
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if self.limit > 0 && *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(AddressSlot {
            addresses: Arc::clone(self),
            address,
        })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_limit() {
        let addresses = Arc::new(Addresses::new(2));
        let enter = |address: &str| addresses.enter(address.parse().unwrap());
        let held = [enter("10.0.0.1"), enter("::ffff:10.0.0.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("10.0.0.1").is_none());
        assert!(enter("10.0.0.2").is_some());
        drop(held);
        assert!(enter("10.0.0.1").is_some());
        assert!(addresses.lock().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_prefix_count_together() {
        let addresses = Arc::new(Addresses::new(1));
        let enter = |address: &str| addresses.enter(address.parse().unwrap());
        let _held = enter("2001:db8:1:2::1").unwrap();
        assert!(enter("2001:db8:1:2:ffff::2").is_none());
        assert!(enter("2001:db8:1:3::1").is_some());
    }
}
