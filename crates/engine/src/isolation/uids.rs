//! A user number on the host for each live worker.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Users that workers may have at once. More than a host has VMs.
const COUNT: u32 = 1 << 16;

/// The numbers from `first` on. Clones share them.
#[derive(Clone, Debug)]
pub struct Uids {
    first: u32,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    used: BTreeSet<u32>,
    /// The number after the one that was given out last: a number rests as long as possible.
    next: u32,
}

/// A number, given back when it is dropped.
#[derive(Debug)]
pub struct Uid {
    number: u32,
    uids: Uids,
}

impl Uids {
    /// All numbers are free.
    pub fn new(first: u32) -> Self {
        Uids {
            first,
            shared: Arc::default(),
        }
    }

    /// A number that no live worker has; `None` if all are in use.
    pub fn lease(&self) -> Option<Uid> {
        let mut shared = self.lock();
        let next = shared.next;
        let offset = (0..COUNT)
            .map(|offset| (next + offset) % COUNT)
            .find(|offset| !shared.used.contains(offset))?;
        shared.used.insert(offset);
        shared.next = (offset + 1) % COUNT;
        Some(Uid {
            number: self.first + offset,
            uids: self.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Each change is a single insertion or removal.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uid {
    /// The number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Uid {
    fn drop(&mut self) {
        let offset = self.number - self.uids.first;
        self.uids.lock().used.remove(&offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_workers_never_share_a_user() {
        let uids = Uids::new(1000);
        let all: Vec<_> = (0..COUNT).map(|_| uids.lease().unwrap()).collect();
        let numbers: BTreeSet<_> = all.iter().map(Uid::number).collect();
        assert_eq!(numbers.len(), COUNT as usize);
        assert_eq!(numbers.first(), Some(&1000));
        assert!(uids.lease().is_none());
        drop(all);
        assert!(uids.lease().is_some());
    }

    #[test]
    fn a_returned_user_is_given_out_last() {
        let uids = Uids::new(0);
        let first = uids.lease().unwrap().number();
        assert_ne!(uids.lease().unwrap().number(), first);
    }
}
