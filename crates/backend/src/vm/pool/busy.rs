//! Whether forks run for somebody who waits: the pool makes no new ones beside them unless it must.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A pool is not filled for so long after a fork was taken that still runs. Most programs have ended by then;
/// those that go on share the processors with the pool's work.
const HOLD: Duration = Duration::from_secs(1);

/// How many forks run, and since when the latest does.
pub struct Running {
    count: Arc<AtomicUsize>,
    latest: Mutex<Option<Instant>>,
    changed: watch::Sender<u64>,
}

/// One of them. Dropped when it is gone, its worker and network included.
pub struct Busy {
    count: Arc<AtomicUsize>,
    changed: watch::Sender<u64>,
}

impl Running {
    /// None yet. `changed` is told when one has gone.
    pub fn new(changed: watch::Sender<u64>) -> Self {
        Running {
            count: Arc::default(),
            latest: Mutex::default(),
            changed,
        }
    }

    /// One more.
    pub fn begin(&self) -> Busy {
        self.count.fetch_add(1, Ordering::SeqCst);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Busy {
            count: Arc::clone(&self.count),
            changed: self.changed.clone(),
        }
    }

    /// How much longer the pool should leave them alone; none if not at all.
    pub fn hold(&self) -> Option<Duration> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let latest = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let left = HOLD.checked_sub(latest?.elapsed())?;
        (!left.is_zero()).then_some(left)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_held_back_while_a_fork_runs_and_told_when_it_is_gone() {
        let changed = watch::Sender::new(0);
        let mut told = changed.subscribe();
        let running = Running::new(changed);
        assert_eq!(running.hold(), None);
        let (first, second) = (running.begin(), running.begin());
        assert!(running.hold().is_some_and(|left| left <= HOLD));
        drop(first);
        assert!(running.hold().is_some());
        told.mark_unchanged();
        drop(second);
        assert_eq!(running.hold(), None);
        assert!(told.has_changed().unwrap());
    }

    #[test]
    fn one_that_runs_for_long_holds_nothing_back() {
        let running = Running::new(watch::Sender::new(0));
        let _fork = running.begin();
        *running.latest.lock().unwrap() = Instant::now().checked_sub(HOLD);
        assert_eq!(running.hold(), None);
    }
}
