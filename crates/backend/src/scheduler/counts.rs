//! Waiting and running executions, in total and for each owner, and whether there is room for more.

use std::collections::HashMap;

use cloude_engine::{Demand, QueueFull};

use super::quota::{QuotaExceeded, Quotas};
use crate::tenant::Tenant;

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

/// A request finds no place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnterError {
    /// The queue is full, and the tenant has its share of it.
    #[error(transparent)]
    Full(#[from] QueueFull),
    /// The tenant has reached a quota.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

/// A tenant; `None` is the server itself, which builds templates.
pub type Owner = Option<Tenant>;

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

/// Waiting and running executions.
#[derive(Debug, Default)]
pub struct Counts {
    total: Usage,
    vcpus: usize,
    /// Memory that is not available to VMs, in MiB.
    pub reserved_mib: u64,
    /// Owners that have waiting requests or VMs.
    owners: HashMap<Owner, Usage>,
}

/// The waiting requests and the VMs of one owner, or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    waiting: Waiting,
    /// Requests that wait for their image, outside the queue.
    for_image: Waiting,
    running: usize,
    memory_mib: u64,
}

/// The number of waiting requests, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    requests: usize,
    bytes: usize,
}

impl Waiting {
    fn fits(self, bytes: usize, requests: usize, most_bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= most_bytes || self.requests == 0;
        self.requests < requests && fits
    }
}

/// The count that a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Requests in the queue.
    Waiting,
    /// Requests that wait for their image.
    ForImage,
    /// None: no client waits for the VM.
    Nowhere,
}

impl Usage {
    fn waiting(&mut self, counted: Counted) -> Option<&mut Waiting> {
        match counted {
            Counted::Waiting => Some(&mut self.waiting),
            Counted::ForImage => Some(&mut self.for_image),
            Counted::Nowhere => None,
        }
    }

    fn start(&mut self, demand: Demand) {
        self.running += 1;
        self.memory_mib += demand.memory_mib;
    }

    fn end(&mut self, demand: Demand) {
        self.running -= 1;
        self.memory_mib -= demand.memory_mib;
    }
}

impl Counts {
    /// The current load.
    pub fn load(&self) -> Load {
        Load {
            waiting: self.total.waiting.requests,
            for_image: self.total.for_image.requests,
            running: self.total.running,
            vcpus: self.vcpus,
            memory_mib: self.total.memory_mib,
        }
    }

    /// Changes the total and what an owner has, and forgets an owner that has nothing.
    fn change(&mut self, owner: &Owner, change: impl Fn(&mut Usage)) {
        change(&mut self.total);
        let usage = self.owners.entry(owner.clone()).or_default();
        change(usage);
        if usage.waiting.requests + usage.for_image.requests + usage.running == 0 {
            self.owners.remove(owner);
        }
    }

    /// Counts a waiting request of `bytes`.
    pub fn add(&mut self, owner: &Owner, bytes: usize, counted: Counted) {
        self.change(owner, |usage| {
            if let Some(waiting) = usage.waiting(counted) {
                waiting.requests += 1;
                waiting.bytes += bytes;
            }
        });
    }

    /// The request no longer waits.
    pub fn remove(&mut self, owner: &Owner, bytes: usize, counted: Counted) {
        self.change(owner, |usage| {
            if let Some(waiting) = usage.waiting(counted) {
                waiting.requests -= 1;
                waiting.bytes -= bytes;
            }
        });
    }

    /// Counts a VM.
    pub fn start(&mut self, owner: &Owner, demand: Demand) {
        self.vcpus += demand.vcpus;
        self.change(owner, |usage| usage.start(demand));
    }

    /// The VM has ended.
    pub fn end(&mut self, owner: &Owner, demand: Demand) {
        self.vcpus -= demand.vcpus;
        self.change(owner, |usage| usage.end(demand));
    }

    /// Checks for room for one more waiting request. While the queue is full, a tenant is still accepted within its
    /// equal share, so that none can fill the queue of the others.
    pub fn check(
        &self,
        owner: &Owner,
        (bytes, counted): (usize, Counted),
        capacity: Capacity,
        quotas: Quotas,
    ) -> Result<(), EnterError> {
        let waiting = |mut usage: Usage| usage.waiting(counted).copied().unwrap_or_default();
        let total = waiting(self.total);
        let own = waiting(self.owners.get(owner).copied().unwrap_or_default());
        let retry_after = |waiting: usize| (1 + waiting / capacity.vms.max(1)).min(60) as u64;
        if owner.is_some() && quotas.queued > 0 && own.requests >= quotas.queued {
            return Err(EnterError::Quota(QuotaExceeded {
                quota: "quota.queued",
                limit: quotas.queued as u64,
                retry_after_s: retry_after(own.requests),
            }));
        }
        let others = self.owners.iter().filter(|(other, _)| *other != owner);
        let others =
            others.filter(|(other, usage)| other.is_some() && waiting(**usage).requests > 0);
        let owners = 1 + others.count();
        let share = (capacity.queue / owners).max(1);
        if total.fits(bytes, capacity.queue, capacity.queue_bytes)
            || owner.is_some() && own.fits(bytes, share, capacity.queue_bytes / owners)
        {
            return Ok(());
        }
        Err(EnterError::Full(QueueFull {
            waiting: total.requests,
            retry_after_s: retry_after(total.requests),
        }))
    }

    /// True if the quotas of the owner allow one more VM.
    pub fn allows(&self, owner: &Owner, demand: Demand, quotas: Quotas) -> bool {
        let used = self.owners.get(owner).copied().unwrap_or_default();
        owner.is_none() || quotas.allow_vm(used.running, used.memory_mib, demand.memory_mib)
    }

    /// True if the host has room for one more VM. While no VM runs, one is admitted within the host's memory even if
    /// it exceeds the vCPUs or meets reserved memory: otherwise it would wait forever.
    pub fn has_room(&self, demand: Demand, capacity: Capacity) -> bool {
        let (running, memory_mib) = (self.total.running, self.total.memory_mib);
        let memory_mib = memory_mib + demand.memory_mib;
        let fits = self.vcpus + demand.vcpus <= capacity.vcpus
            && memory_mib + self.reserved_mib <= capacity.memory_mib;
        running < capacity.vms && memory_mib <= capacity.memory_mib && (running == 0 || fits)
    }
}
