//! Admission of VMs: a bounded queue within a number of VMs, their vCPUs and the host's memory. Tenants take turns
//! by deficit round robin, and each has quotas. The requests of a tenant are served in their order.

mod counts;
mod fair;
mod memory;
mod quota;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cloude_engine::{Admission, Demand, PendingPermit, QueueFull};
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::tenant::Tenant;
use counts::{Counted, Counts, Owner};
use fair::FairQueue;
use quota::Rates;

pub use counts::{Capacity, EnterError, Load};
pub use memory::available_memory_mib;
pub use quota::{QuotaExceeded, Quotas};

/// Gives out [`QueueSlot`]s and [`VmPermit`]s. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    capacity: Capacity,
    quotas: Quotas,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    waiters: FairQueue<Owner, Waiter>,
    rates: Rates,
}

#[derive(Debug)]
struct Waiter {
    demand: Demand,
    admit: oneshot::Sender<VmPermit>,
}

impl Scheduler {
    /// An empty queue without quotas.
    pub fn new(capacity: Capacity) -> Self {
        Scheduler::with_quotas(capacity, Quotas::default())
    }

    /// An empty queue. Each tenant has the same quotas.
    pub fn with_quotas(capacity: Capacity, quotas: Quotas) -> Self {
        Scheduler {
            shared: Arc::new(Shared {
                capacity,
                quotas,
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
        self.shared.lock().counts.load()
    }

    /// Sets the memory that is not available to VMs, in MiB. A single VM is admitted in any case.
    pub fn reserve(&self, memory_mib: u64) {
        self.shared.lock().counts.reserved_mib = memory_mib;
        self.shared.admit();
    }

    /// Takes a queue slot for a request of `bytes`. Fails at once if there is none, or if the tenant has reached a
    /// quota.
    pub fn enter(&self, tenant: &Tenant, bytes: usize) -> Result<QueueSlot, EnterError> {
        self.request(tenant, bytes, Counted::Waiting)
    }

    /// Takes a slot outside the queue for a request whose image is being built, so that builds do not fill the
    /// queue. The request joins the queue when it asks for its VM.
    pub fn enter_for_image(&self, tenant: &Tenant, bytes: usize) -> Result<QueueSlot, EnterError> {
        self.request(tenant, bytes, Counted::ForImage)
    }

    fn request(
        &self,
        tenant: &Tenant,
        bytes: usize,
        counted: Counted,
    ) -> Result<QueueSlot, EnterError> {
        let owner = Some(tenant.clone());
        let mut state = self.shared.lock();
        let (capacity, quotas) = (self.shared.capacity, self.shared.quotas);
        let per_s = quotas.requests_per_s;
        state.rates.take(tenant, per_s, Instant::now())?;
        let counts = &mut state.counts;
        counts.check(&owner, (bytes, counted), capacity, quotas)?;
        counts.add(&owner, bytes, counted);
        Ok(self.slot(owner, bytes, counted))
    }

    /// Takes a queue slot beyond the limits, for an execution that was accepted before a restart.
    pub fn enter_again(&self, tenant: &Tenant, bytes: usize) -> QueueSlot {
        let owner = Some(tenant.clone());
        let counts = &mut self.shared.lock().counts;
        counts.add(&owner, bytes, Counted::Waiting);
        self.slot(owner, bytes, Counted::Waiting)
    }

    /// A slot for a VM that no client waits for, such as that of a template build. It is not counted, so no client is
    /// refused for it. The caller limits the number of such slots.
    pub fn enter_uncounted(&self) -> QueueSlot {
        self.slot(None, 0, Counted::Nowhere)
    }

    fn slot(&self, owner: Owner, bytes: usize, counted: Counted) -> QueueSlot {
        QueueSlot {
            shared: Arc::clone(&self.shared),
            owner,
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
        let (capacity, quotas) = (self.shared.capacity, self.shared.quotas);
        let mut state = self.shared.lock();
        let checked = state
            .counts
            .check(&None, (0, Counted::Waiting), capacity, quotas);
        match checked {
            Err(EnterError::Full(full)) => return Err(full),
            // The server itself has no quotas.
            Err(EnterError::Quota(_)) | Ok(()) => {}
        }
        state.counts.add(&None, 0, Counted::Waiting);
        drop(state);
        Ok(self.slot(None, 0, Counted::Waiting).pending(demand))
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

    /// Admits waiters in order while there is room. None overtakes the next, so that small VMs do not starve a large
    /// one. Only tenants that have reached a quota are overtaken.
    fn admit(self: &Arc<Self>) {
        // Dropped after the lock is released: dropping a permit takes the lock.
        let mut unclaimed = Vec::new();
        let mut state = self.lock();
        loop {
            let State {
                counts, waiters, ..
            } = &mut *state;
            let allowed =
                |owner: &Owner, waiter: &Waiter| counts.allows(owner, waiter.demand, self.quotas);
            let next = waiters.next(allowed);
            let room = next.is_some_and(|next| counts.has_room(next.demand, self.capacity));
            let Some((owner, head)) = room.then(|| waiters.pop()).flatten() else {
                break;
            };
            counts.start(&owner, head.demand);
            let permit = VmPermit {
                shared: Arc::clone(self),
                owner,
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
    owner: Owner,
    bytes: usize,
    counted: Counted,
}

impl QueueSlot {
    /// Waits for the VM permit. Dropping the future gives up the wait and the slot.
    pub async fn admitted(mut self, demand: Demand) -> VmPermit {
        let (admit, admitted) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if self.counted == Counted::ForImage {
                let counts = &mut state.counts;
                counts.remove(&self.owner, self.bytes, Counted::ForImage);
                counts.add(&self.owner, self.bytes, Counted::Waiting);
                self.counted = Counted::Waiting;
            }
            let waiter = Waiter { demand, admit };
            state.waiters.push(&self.owner, demand.memory_mib, waiter);
        }
        let leaves = LeaveOnDrop(&self.shared, &self.owner);
        self.shared.admit();
        let permit = admitted.await;
        drop(leaves);
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

/// Removes a waiter whose future is dropped. The next one may then be admitted.
struct LeaveOnDrop<'a>(&'a Arc<Shared>, &'a Owner);

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let waits = |waiter: &Waiter| !waiter.admit.is_closed();
        state.waiters.retain(self.1, waits);
        drop(state);
        self.0.admit();
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let counts = &mut state.counts;
        counts.remove(&self.owner, self.bytes, self.counted);
    }
}

/// The right to run one VM. Dropping it admits the next.
#[derive(Debug)]
pub struct VmPermit {
    shared: Arc<Shared>,
    owner: Owner,
    demand: Demand,
}

impl Drop for VmPermit {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.counts.end(&self.owner, self.demand);
        }
        self.shared.admit();
    }
}

#[cfg(test)]
mod tests;
