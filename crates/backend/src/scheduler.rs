//! Who may start a VM when: a bounded queue, first come first served, within a number of VMs and the
//! host's memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What the host has for VMs.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// VMs at once.
    pub vms: usize,
    /// MiB of all VMs together.
    pub memory_mib: u64,
    /// Accepted and not yet in a VM.
    pub queue: usize,
    /// Bytes of the requests that wait.
    pub queue_bytes: usize,
}

/// The queue is full.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{waiting} executions are waiting already; try again in {retry_after_s} s")]
pub struct Full {
    /// How many.
    pub waiting: usize,
    /// A guess at when there is room, in seconds, 1 to 60.
    pub retry_after_s: u64,
}

/// Hands out [`Place`]s in the queue and [`Permit`]s for VMs.
#[derive(Clone, Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    capacity: Capacity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    waiting_bytes: usize,
    running: usize,
    memory_mib: u64,
    reserved_mib: u64,
    line: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    memory_mib: u64,
    admit: oneshot::Sender<Permit>,
}

/// How busy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Accepted and not yet in a VM.
    pub waiting: usize,
    /// In a VM.
    pub running: usize,
    /// MiB that those VMs may use.
    pub memory_mib: u64,
}

impl Scheduler {
    /// An idle one.
    pub fn new(capacity: Capacity) -> Self {
        Scheduler {
            shared: Arc::new(Shared {
                capacity,
                state: Mutex::default(),
            }),
        }
    }

    /// What it was made with.
    pub fn capacity(&self) -> Capacity {
        self.shared.capacity
    }

    /// How busy it is now.
    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load {
            waiting: state.waiting,
            running: state.running,
            memory_mib: state.memory_mib,
        }
    }

    /// Keeps so much of the memory for something else than VMs, from now on, in MiB. A single VM is
    /// admitted all the same.
    pub fn reserve(&self, memory_mib: u64) {
        self.shared.lock().reserved_mib = memory_mib;
        self.shared.admit();
    }

    /// Takes a place in the queue for a request of `bytes`, at once or not at all.
    pub fn enter(&self, bytes: usize) -> Result<Place, Full> {
        let Capacity {
            queue,
            queue_bytes,
            vms,
            ..
        } = self.shared.capacity;
        let mut state = self.shared.lock();
        let fits = state.waiting_bytes.saturating_add(bytes) <= queue_bytes || state.waiting == 0;
        if state.waiting >= queue || !fits {
            let retry_after_s = (1 + state.waiting / vms.max(1)).min(60) as u64;
            return Err(Full {
                waiting: state.waiting,
                retry_after_s,
            });
        }
        Ok(self.place(&mut state, bytes))
    }

    /// Takes a place whatever the bounds: for what was accepted before a restart.
    pub fn enter_again(&self, bytes: usize) -> Place {
        self.place(&mut self.shared.lock(), bytes)
    }

    fn place(&self, state: &mut State, bytes: usize) -> Place {
        state.waiting += 1;
        state.waiting_bytes += bytes;
        Place {
            shared: Arc::clone(&self.shared),
            bytes,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits from the head of the line. The head waits for room, and all behind it wait for the
    /// head: a large VM is not starved by small ones.
    fn admit(self: &Arc<Self>) {
        // A permit that nobody takes any more is dropped after the lock is: dropping locks.
        let mut unclaimed = Vec::new();
        let mut state = self.lock();
        loop {
            if state
                .line
                .front()
                .is_some_and(|head| head.admit.is_closed())
            {
                state.line.pop_front();
                continue;
            }
            let room = state.line.front().is_some_and(|head| {
                // With nothing running the head goes in whatever is reserved: it would wait for ever.
                let wanted = state.memory_mib + head.memory_mib;
                state.running < self.capacity.vms
                    && wanted <= self.capacity.memory_mib
                    && (state.running == 0
                        || wanted + state.reserved_mib <= self.capacity.memory_mib)
            });
            let Some(head) = room.then(|| state.line.pop_front()).flatten() else {
                break;
            };
            state.running += 1;
            state.memory_mib += head.memory_mib;
            let permit = Permit {
                shared: Arc::clone(self),
                memory_mib: head.memory_mib,
            };
            if let Err(permit) = head.admit.send(permit) {
                unclaimed.push(permit);
            }
        }
        drop(state);
        drop(unclaimed);
    }
}

/// A place in the queue; leaving it is dropping it.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Place {
    /// Joins the line for a VM of so much memory, and waits for its turn.
    pub async fn admitted(self, memory_mib: u64) -> Permit {
        let (admit, admitted) = oneshot::channel();
        self.shared
            .lock()
            .line
            .push_back(Waiter { memory_mib, admit });
        // Should this future be dropped while it waits, the head may have become another.
        let again = AdmitOnDrop(&self.shared);
        self.shared.admit();
        let permit = admitted.await;
        drop(again);
        match permit {
            Ok(permit) => permit,
            // A waiter leaves the line only when it is admitted or its receiver is gone.
            Err(_) => unreachable!("a waiter was dropped from the line"),
        }
    }
}

struct AdmitOnDrop<'a>(&'a Arc<Shared>);

impl Drop for AdmitOnDrop<'_> {
    fn drop(&mut self) {
        self.0.admit();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.waiting -= 1;
        state.waiting_bytes -= self.bytes;
    }
}

/// The right to one VM, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    memory_mib: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.running -= 1;
            state.memory_mib -= self.memory_mib;
        }
        self.shared.admit();
    }
}

/// MemAvailable of /proc/meminfo in MiB, if it can be read.
pub fn available_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};

    use super::*;

    fn scheduler(vms: usize, memory_mib: u64, queue: usize) -> Scheduler {
        Scheduler::new(Capacity {
            vms,
            memory_mib,
            queue,
            queue_bytes: 1000,
        })
    }

    #[tokio::test]
    async fn past_its_bound_the_queue_refuses() {
        let scheduler = scheduler(1, 100, 2);
        let _first = scheduler.enter(1).unwrap();
        let _second = scheduler.enter(1).unwrap();
        let full = scheduler.enter(1).unwrap_err();
        assert_eq!((full.waiting, full.retry_after_s), (2, 3));
    }

    #[tokio::test]
    async fn what_is_reserved_is_room_for_no_second_vm_but_the_first_is_never_kept_out() {
        let scheduler = scheduler(9, 100, 9);
        scheduler.reserve(90);
        let first = scheduler.enter(1).unwrap().admitted(50).await;
        let mut second = Box::pin(scheduler.enter(1).unwrap().admitted(40));
        assert!(poll!(&mut second).is_pending());
        scheduler.reserve(10);
        let second = second.now_or_never();
        assert!(second.is_some(), "it fits beside what is still reserved");
        drop(first);
    }

    #[tokio::test]
    async fn the_bytes_of_waiting_requests_are_bounded() {
        let scheduler = scheduler(1, 100, 10);
        let first = scheduler.enter(900).unwrap();
        assert!(scheduler.enter(200).is_err());
        drop(first);
        assert!(scheduler.enter(200).is_ok());
    }

    #[tokio::test]
    async fn vms_and_memory_are_bounded() {
        let scheduler = scheduler(2, 100, 10);
        let first = scheduler.enter(0).unwrap().admitted(60).await;
        let mut second = Box::pin(scheduler.enter(0).unwrap().admitted(60));
        assert!(
            poll!(&mut second).is_pending(),
            "60 + 60 MiB do not fit in 100"
        );
        drop(first);
        let _second = second.await;
        let _third = scheduler.enter(0).unwrap().admitted(10).await;
        let mut fourth = Box::pin(scheduler.enter(0).unwrap().admitted(10));
        assert!(poll!(&mut fourth).is_pending(), "two VMs at once");
        let load = scheduler.load();
        assert_eq!((load.running, load.waiting, load.memory_mib), (2, 1, 70));
    }

    #[tokio::test]
    async fn first_come_is_first_served_even_where_a_later_one_would_fit() {
        let scheduler = scheduler(3, 100, 10);
        let running = scheduler.enter(0).unwrap().admitted(50).await;
        let mut large = Box::pin(scheduler.enter(0).unwrap().admitted(80));
        assert!(poll!(&mut large).is_pending());
        let mut small = Box::pin(scheduler.enter(0).unwrap().admitted(10));
        assert!(poll!(&mut small).is_pending());
        drop(running);
        let large = large.now_or_never().unwrap();
        let _small = small.now_or_never().unwrap();
        drop(large);
        assert_eq!(scheduler.load().memory_mib, 10);
    }

    #[tokio::test]
    async fn who_leaves_the_line_holds_nobody_up() {
        let scheduler = scheduler(3, 100, 10);
        let _running = scheduler.enter(0).unwrap().admitted(50).await;
        let mut large = Box::pin(scheduler.enter(0).unwrap().admitted(80));
        assert!(poll!(&mut large).is_pending());
        let mut small = Box::pin(scheduler.enter(0).unwrap().admitted(10));
        assert!(poll!(&mut small).is_pending());
        drop(large);
        let _small = small.now_or_never().unwrap();
        assert_eq!(scheduler.load().waiting, 0);
    }

    #[tokio::test]
    async fn a_permit_that_nobody_took_is_given_back() {
        let scheduler = scheduler(1, 100, 10);
        let first = scheduler.enter(0).unwrap().admitted(50).await;
        let mut second = Box::pin(scheduler.enter(0).unwrap().admitted(50));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        drop(second);
        assert_eq!(
            scheduler.load(),
            Load {
                waiting: 0,
                running: 0,
                memory_mib: 0
            }
        );
    }
}
