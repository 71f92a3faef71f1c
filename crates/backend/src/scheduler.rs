//! Admission of VMs: a bounded first-in, first-out queue within a number of VMs, their vCPUs and the host's
//! memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloude_engine::{Admission, Demand, PendingPermit, QueueFull};
use futures_util::FutureExt;
use tokio::sync::oneshot;

/// The limits of a host.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// VMs at once.
    pub vms: usize,
    /// vCPUs of all VMs. A single VM may have more.
    pub vcpus: usize,
    /// MiB of all VMs, with [`cloude_engine::WORKER_MIB`] for each.
    pub memory_mib: u64,
    /// Executions that wait for a VM. The same number may wait for their image.
    pub queue: usize,
    /// Bytes of the requests that wait for a VM. The same number for those that wait for their image.
    pub queue_bytes: usize,
}

/// Gives out [`QueueSlot`]s and [`VmPermit`]s. Clones share the queue.
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
    /// Requests that wait for their image, outside the queue.
    for_image: Waiting,
    running: usize,
    vcpus: usize,
    memory_mib: u64,
    reserved_mib: u64,
    waiters: VecDeque<Waiter>,
}

/// The number of waiting requests, and their bytes.
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

    fn check(self, bytes: usize, capacity: Capacity) -> Result<(), QueueFull> {
        let fits = self.bytes.saturating_add(bytes) <= capacity.queue_bytes || self.requests == 0;
        if self.requests < capacity.queue && fits {
            return Ok(());
        }
        Err(QueueFull {
            waiting: self.requests,
            retry_after_s: (1 + self.requests / capacity.vms.max(1)).min(60) as u64,
        })
    }
}

#[derive(Debug)]
struct Waiter {
    demand: Demand,
    admit: oneshot::Sender<VmPermit>,
}

impl State {
    /// While no VM runs, the first waiter is admitted within the host's memory even if it exceeds the vCPUs or meets
    /// reserved memory: otherwise it would wait forever.
    fn has_room(&self, demand: Demand, capacity: Capacity) -> bool {
        let memory_mib = self.memory_mib + demand.memory_mib;
        let fits = self.vcpus + demand.vcpus <= capacity.vcpus
            && memory_mib + self.reserved_mib <= capacity.memory_mib;
        self.running < capacity.vms
            && memory_mib <= capacity.memory_mib
            && (self.running == 0 || fits)
    }
}

/// The current load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Executions that wait for a VM.
    pub waiting: usize,
    /// Executions that wait for their image.
    pub for_image: usize,
    /// Running VMs.
    pub running: usize,
    /// vCPUs of those VMs.
    pub vcpus: usize,
    /// Memory of those VMs, in MiB.
    pub memory_mib: u64,
}

impl Scheduler {
    /// An empty queue.
    pub fn new(capacity: Capacity) -> Self {
        Scheduler {
            shared: Arc::new(Shared {
                capacity,
                state: Mutex::default(),
            }),
        }
    }

    /// The limits.
    pub fn capacity(&self) -> Capacity {
        self.shared.capacity
    }

    /// The current load.
    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load {
            waiting: state.waiting.requests,
            for_image: state.for_image.requests,
            running: state.running,
            vcpus: state.vcpus,
            memory_mib: state.memory_mib,
        }
    }

    /// Sets the memory that is not available to VMs, in MiB. A single VM is admitted in any case.
    pub fn reserve(&self, memory_mib: u64) {
        self.shared.lock().reserved_mib = memory_mib;
        self.shared.admit();
    }

    /// Takes a queue slot for a request of `bytes`. Fails at once if the queue is full.
    pub fn enter(&self, bytes: usize) -> Result<QueueSlot, QueueFull> {
        let mut state = self.shared.lock();
        state.waiting.check(bytes, self.shared.capacity)?;
        state.waiting.add(bytes);
        Ok(self.slot(bytes, Counted::Waiting))
    }

    /// Takes a slot outside the queue for a request whose image is being built, so that builds do not fill the
    /// queue. The request joins the queue when it asks for its VM.
    pub fn enter_for_image(&self, bytes: usize) -> Result<QueueSlot, QueueFull> {
        let mut state = self.shared.lock();
        state.for_image.check(bytes, self.shared.capacity)?;
        state.for_image.add(bytes);
        Ok(self.slot(bytes, Counted::ForImage))
    }

    /// Takes a queue slot beyond the limits, for an execution that was accepted before a restart.
    pub fn enter_again(&self, bytes: usize) -> QueueSlot {
        self.shared.lock().waiting.add(bytes);
        self.slot(bytes, Counted::Waiting)
    }

    /// A slot for a VM that no client waits for, such as that of a template build. It is not counted, so no client is
    /// refused for it. The caller limits the number of such slots.
    pub fn enter_uncounted(&self) -> QueueSlot {
        self.slot(0, Counted::Nowhere)
    }

    fn slot(&self, bytes: usize, counted: Counted) -> QueueSlot {
        QueueSlot {
            shared: Arc::clone(&self.shared),
            bytes,
            counted,
        }
    }
}

impl Admission for Scheduler {
    fn memory_mib(&self) -> u64 {
        self.capacity().memory_mib
    }

    fn enter(&self, demand: Demand) -> Result<PendingPermit, QueueFull> {
        let slot = Scheduler::enter(self, 0)?;
        Ok(slot.pending(demand))
    }

    fn enter_background(&self, demand: Demand) -> PendingPermit {
        self.enter_uncounted().pending(demand)
    }

    fn reserve(&self, memory_mib: u64) {
        Scheduler::reserve(self, memory_mib);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits waiters in order while there is room. None overtakes the first, so that small VMs do not starve a large
    /// one.
    fn admit(self: &Arc<Self>) {
        // Dropped after the lock is released: dropping a permit takes the lock.
        let mut unclaimed = Vec::new();
        let mut state = self.lock();
        loop {
            if state
                .waiters
                .front()
                .is_some_and(|head| head.admit.is_closed())
            {
                state.waiters.pop_front();
                continue;
            }
            let head = state.waiters.front();
            let room = head.is_some_and(|head| state.has_room(head.demand, self.capacity));
            let Some(head) = room.then(|| state.waiters.pop_front()).flatten() else {
                break;
            };
            state.running += 1;
            state.vcpus += head.demand.vcpus;
            state.memory_mib += head.demand.memory_mib;
            let permit = VmPermit {
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

/// A slot of the queue. Dropping it frees the slot.
#[derive(Debug)]
pub struct QueueSlot {
    shared: Arc<Shared>,
    bytes: usize,
    counted: Counted,
}

/// The count that a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Requests in the queue.
    Waiting,
    /// Requests that wait for their image.
    ForImage,
    /// None: no client waits for the VM.
    Nowhere,
}

impl QueueSlot {
    /// Waits for the VM permit. Dropping the future gives up the wait and the slot.
    pub async fn admitted(mut self, demand: Demand) -> VmPermit {
        let (admit, admitted) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if self.counted == Counted::ForImage {
                state.for_image.remove(self.bytes);
                state.waiting.add(self.bytes);
                self.counted = Counted::Waiting;
            }
            state.waiters.push_back(Waiter { demand, admit });
        }
        // If this future is dropped, the next waiter may be admitted.
        let again = AdmitOnDrop(&self.shared);
        self.shared.admit();
        let permit = admitted.await;
        drop(again);
        match permit {
            Ok(permit) => permit,
            // `admit` drops a waiter only if its receiver is closed or it got its permit.
            Err(_) => unreachable!("a waiter was dropped without a permit"),
        }
    }
}

impl QueueSlot {
    fn pending(self, demand: Demand) -> PendingPermit {
        async move { Box::new(self.admitted(demand).await) as cloude_engine::VmPermit }.boxed()
    }
}

struct AdmitOnDrop<'a>(&'a Arc<Shared>);

impl Drop for AdmitOnDrop<'_> {
    fn drop(&mut self) {
        self.0.admit();
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        match self.counted {
            Counted::ForImage => state.for_image.remove(self.bytes),
            Counted::Waiting => state.waiting.remove(self.bytes),
            Counted::Nowhere => {}
        }
    }
}

/// The right to run one VM. Dropping it admits the next.
#[derive(Debug)]
pub struct VmPermit {
    shared: Arc<Shared>,
    demand: Demand,
}

impl Drop for VmPermit {
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
