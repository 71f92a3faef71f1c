//! Who may start a VM when: a bounded queue, first come first served, within a number of VMs, their vCPUs and
//! the host's memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What the host has for VMs.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// VMs at once.
    pub vms: usize,
    /// vCPUs of all VMs together. A single VM may have more.
    pub vcpus: usize,
    /// MiB of all VMs together.
    pub memory_mib: u64,
    /// Accepted and not yet in a VM; and as many again whose image is being built.
    pub queue: usize,
    /// Bytes of the requests that wait, and again of those whose image is being built.
    pub queue_bytes: usize,
}

/// The memory and vCPUs of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// MiB, with what the host needs beside the guest's memory.
    pub memory_mib: u64,
    /// 1 to 8.
    pub vcpus: usize,
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
    waiting: Waiting,
    /// Not in the queue: their images are being built.
    aside: Waiting,
    running: usize,
    vcpus: usize,
    memory_mib: u64,
    reserved_mib: u64,
    line: VecDeque<Waiter>,
}

/// How many requests wait, and how large they are together.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    requests: usize,
    bytes: usize,
}

impl Waiting {
    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }

    fn check(self, bytes: usize, capacity: Capacity) -> Result<(), Full> {
        let fits = self.bytes.saturating_add(bytes) <= capacity.queue_bytes || self.requests == 0;
        if self.requests < capacity.queue && fits {
            return Ok(());
        }
        Err(Full {
            waiting: self.requests,
            retry_after_s: (1 + self.requests / capacity.vms.max(1)).min(60) as u64,
        })
    }
}

#[derive(Debug)]
struct Waiter {
    demand: Demand,
    admit: oneshot::Sender<Permit>,
}

impl State {
    /// With nothing running the head goes in whatever it asks for and whatever is reserved, within the
    /// memory: it would wait for ever.
    fn has_room(&self, demand: Demand, capacity: Capacity) -> bool {
        let memory_mib = self.memory_mib + demand.memory_mib;
        let fits = self.vcpus + demand.vcpus <= capacity.vcpus
            && memory_mib + self.reserved_mib <= capacity.memory_mib;
        self.running < capacity.vms
            && memory_mib <= capacity.memory_mib
            && (self.running == 0 || fits)
    }
}

/// How busy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Accepted and not yet in a VM.
    pub waiting: usize,
    /// Accepted, and waiting for their image to be built.
    pub aside: usize,
    /// In a VM.
    pub running: usize,
    /// vCPUs of those VMs.
    pub vcpus: usize,
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
            waiting: state.waiting.requests,
            aside: state.aside.requests,
            running: state.running,
            vcpus: state.vcpus,
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
        let mut state = self.shared.lock();
        state.waiting.check(bytes, self.shared.capacity)?;
        state.waiting.add(bytes);
        Ok(self.place(bytes, Counted::Waiting))
    }

    /// Takes a place beside the queue, for a request that cannot be run before its image is built: it keeps
    /// nobody else out of the queue, which it joins when it asks for its VM.
    pub fn enter_aside(&self, bytes: usize) -> Result<Place, Full> {
        let mut state = self.shared.lock();
        state.aside.check(bytes, self.shared.capacity)?;
        state.aside.add(bytes);
        Ok(self.place(bytes, Counted::Aside))
    }

    /// Takes a place whatever the bounds: for what was accepted before a restart.
    pub fn enter_again(&self, bytes: usize) -> Place {
        self.shared.lock().waiting.add(bytes);
        self.place(bytes, Counted::Waiting)
    }

    /// A place for a VM of the server's own, such as a template's. It waits in the same line, and is not counted
    /// as a request that waits: clients are not turned away for it. The caller bounds how many there are.
    pub fn enter_uncounted(&self) -> Place {
        self.place(0, Counted::Nowhere)
    }

    fn place(&self, bytes: usize, counted: Counted) -> Place {
        Place {
            shared: Arc::clone(&self.shared),
            bytes,
            counted,
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
            let head = state.line.front();
            let room = head.is_some_and(|head| state.has_room(head.demand, self.capacity));
            let Some(head) = room.then(|| state.line.pop_front()).flatten() else {
                break;
            };
            state.running += 1;
            state.vcpus += head.demand.vcpus;
            state.memory_mib += head.demand.memory_mib;
            let permit = Permit {
                shared: Arc::clone(self),
                demand: head.demand,
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
    counted: Counted,
}

/// Among which requests a place counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Those that wait in the queue.
    Waiting,
    /// Those that wait beside it for their image.
    Aside,
    /// None: it is no client's.
    Nowhere,
}

impl Place {
    /// Joins the line for a VM, and waits for its turn.
    pub async fn admitted(mut self, demand: Demand) -> Permit {
        let (admit, admitted) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if self.counted == Counted::Aside {
                state.aside.remove(self.bytes);
                state.waiting.add(self.bytes);
                self.counted = Counted::Waiting;
            }
            state.line.push_back(Waiter { demand, admit });
        }
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
        match self.counted {
            Counted::Aside => state.aside.remove(self.bytes),
            Counted::Waiting => state.waiting.remove(self.bytes),
            Counted::Nowhere => {}
        }
    }
}

/// The right to one VM, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    demand: Demand,
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.running -= 1;
            state.vcpus -= self.demand.vcpus;
            state.memory_mib -= self.demand.memory_mib;
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
mod tests;
