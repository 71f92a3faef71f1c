//! Waiters of several owners, served by deficit round robin (Shreedhar and Varghese, 1995): owners take turns, each turn
//! has a quantum of cost, and what a turn does not use is left for the owner's next one. An owner's waiters are served
//! in their order.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Cost of one turn, in MiB of VM memory: the default machine of a language, or two small ones.
const QUANTUM: u64 = 512;

/// The waiters.
#[derive(Debug)]
pub struct FairQueue<O, W> {
    /// The owners that have waiters, in the order of their turns. The first one's turn is now.
    turns: VecDeque<O>,
    lanes: HashMap<O, Lane<W>>,
}

#[derive(Debug)]
struct Lane<W> {
    waiters: VecDeque<(u64, W)>,
    deficit: u64,
    /// The quantum of this turn is in the deficit.
    granted: bool,
}

impl<O, W> Default for FairQueue<O, W> {
    fn default() -> Self {
        FairQueue {
            turns: VecDeque::new(),
            lanes: HashMap::new(),
        }
    }
}

impl<O: Clone + Eq + Hash, W> FairQueue<O, W> {
    /// Appends a waiter to those of its owner. `cost`: MiB.
    pub fn push(&mut self, owner: &O, cost: u64, waiter: W) {
        if !self.lanes.contains_key(owner) {
            self.turns.push_back(owner.clone());
        }
        let lane = self.lanes.entry(owner.clone()).or_insert_with(|| Lane {
            waiters: VecDeque::new(),
            deficit: 0,
            granted: false,
        });
        lane.waiters.push_back((cost, waiter));
    }

    /// The waiter that is to be served next. Owners whose first waiter is not `allowed` lose their turn. It stays the
    /// next one until it is popped, or until `allowed` changes.
    pub fn next(&mut self, allowed: impl Fn(&O, &W) -> bool) -> Option<&W> {
        let mut passed = 0;
        while passed < self.turns.len() {
            let owner = self.turns.front()?;
            let lane = self.lanes.get_mut(owner)?;
            let (cost, waiter) = lane.waiters.front()?;
            if allowed(owner, waiter) {
                passed = 0;
                if !lane.granted {
                    lane.deficit += QUANTUM;
                    lane.granted = true;
                }
                if *cost <= lane.deficit {
                    let lane = self.lanes.get(self.turns.front()?)?;
                    return lane.waiters.front().map(|(_, waiter)| waiter);
                }
            } else {
                passed += 1;
            }
            lane.granted = false;
            self.turns.rotate_left(1);
        }
        None
    }

    /// Removes the waiter that [`FairQueue::next`] returned.
    pub fn pop(&mut self) -> Option<(O, W)> {
        let owner = self.turns.front()?.clone();
        let lane = self.lanes.get_mut(&owner)?;
        let (cost, waiter) = lane.waiters.pop_front()?;
        lane.deficit = lane.deficit.saturating_sub(cost);
        self.forget_if_empty(&owner);
        Some((owner, waiter))
    }

    /// Removes the owner's waiters for which `keep` is false.
    pub fn retain(&mut self, owner: &O, keep: impl Fn(&W) -> bool) {
        if let Some(lane) = self.lanes.get_mut(owner) {
            lane.waiters.retain(|(_, waiter)| keep(waiter));
        }
        self.forget_if_empty(owner);
    }

    /// An owner without waiters keeps no deficit.
    fn forget_if_empty(&mut self, owner: &O) {
        let is_empty = |lane: &Lane<W>| lane.waiters.is_empty();
        if self.lanes.get(owner).is_some_and(is_empty) {
            self.lanes.remove(owner);
            self.turns.retain(|other| other != owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(queue: &mut FairQueue<char, u32>, count: usize) -> String {
        let mut order = String::new();
        for _ in 0..count {
            if queue.next(|_, _| true).is_none() {
                break;
            }
            order.push(queue.pop().unwrap().0);
        }
        order
    }

    #[test]
    fn owners_with_equal_costs_take_turns() {
        let mut queue = FairQueue::default();
        for number in 0..6 {
            queue.push(&'a', 512, number);
        }
        for number in 0..3 {
            queue.push(&'b', 512, number);
        }
        assert_eq!(served(&mut queue, 9), "abababaaa");
    }

    #[test]
    fn owners_get_equal_memory_not_equal_counts() {
        let mut queue = FairQueue::default();
        for number in 0..100 {
            queue.push(&'l', 2048, number);
            queue.push(&'s', 256, number);
        }
        let order = served(&mut queue, 45);
        let count = |owner| order.matches(owner).count();
        assert_eq!((count('l'), count('s')), (5, 40), "{order}");
    }

    #[test]
    fn the_waiters_of_one_owner_keep_their_order() {
        let mut queue = FairQueue::default();
        for (number, cost) in [(0, 8192), (1, 64), (2, 4096)] {
            queue.push(&'a', cost, number);
        }
        let mut order = Vec::new();
        while queue.next(|_, _| true).is_some() {
            order.push(queue.pop().unwrap().1);
        }
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn an_owner_over_its_quota_holds_up_no_other() {
        let mut queue = FairQueue::default();
        queue.push(&'a', 512, 1);
        queue.push(&'b', 512, 2);
        assert_eq!(queue.next(|owner, _| *owner != 'a'), Some(&2));
        queue.pop();
        assert_eq!(queue.next(|owner, _| *owner != 'a'), None);
        assert_eq!(queue.next(|_, _| true), Some(&1));
    }

    #[test]
    fn an_owner_without_waiters_is_forgotten() {
        let mut queue = FairQueue::default();
        for number in 0..10 {
            queue.push(&'a', 64, number);
        }
        queue.retain(&'a', |_| false);
        assert_eq!(queue.next(|_, _| true), None);
        assert!(queue.lanes.is_empty() && queue.turns.is_empty());
    }
}
