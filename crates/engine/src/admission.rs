//! Who decides when a VM may start that no execution asked for: the build of a template.
//!
//! Executions are admitted by the engine's caller before [`crate::Engine::launch`]. Template builds start
//! inside the engine, and ask an [`Admission`] so that both kinds of VMs share one limit.

use std::any::Any;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// The memory and vCPUs of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Guest memory and [`crate::WORKER_MIB`], in MiB.
    pub memory_mib: u64,
    /// 1 to 8.
    pub vcpus: usize,
}

/// The queue has no free slot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{waiting} executions are waiting already; try again in {retry_after_s} s")]
pub struct QueueFull {
    /// Executions in the queue.
    pub waiting: usize,
    /// An estimate of when a slot is free, in seconds, 1 to 60.
    pub retry_after_s: u64,
}

/// The right to run one VM, until it is dropped.
pub type VmPermit = Box<dyn Any + Send>;

/// Resolves once the VM may start. Dropped before that, it leaves the queue.
pub type PendingPermit = BoxFuture<'static, VmPermit>;

/// Limits the VMs of a host.
pub trait Admission: Send + Sync {
    /// Guest memory of all VMs together, in MiB. Templates may hold half of it.
    fn memory_mib(&self) -> u64;

    /// Queues the VM of a build that a client waits for. Takes a slot of the bounded queue at once.
    fn enter(&self, demand: Demand) -> Result<PendingPermit, QueueFull>;

    /// Queues the VM of a build that no client waits for. Takes no slot: clients are not refused for it.
    fn enter_background(&self, demand: Demand) -> PendingPermit;

    /// Sets the memory that templates hold, in MiB: it is not available to VMs.
    fn reserve(&self, memory_mib: u64);
}

/// Admits every VM at once: for programs that start few VMs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl Admission for Unlimited {
    fn memory_mib(&self) -> u64 {
        u64::MAX >> 20
    }

    fn enter(&self, demand: Demand) -> Result<PendingPermit, QueueFull> {
        Ok(self.enter_background(demand))
    }

    fn enter_background(&self, _demand: Demand) -> PendingPermit {
        async { Box::new(()) as VmPermit }.boxed()
    }

    fn reserve(&self, _memory_mib: u64) {}
}
