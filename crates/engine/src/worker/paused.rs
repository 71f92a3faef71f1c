//! A restored VM whose vCPUs have not run since the save.

use std::sync::Arc;

use cloude_vmm::control::{Request, RestoreCosts};
use tokio::net::UnixStream;

use super::console::Console;
use super::process::Worker;
use crate::error::Failure;
use crate::machine::AgentStream;
use crate::network::{Attached, release};
use crate::snapshot::Template;

/// A fork of a template, paused at the instant of the save.
pub struct PausedFork {
    pub(super) worker: Worker,
    pub(super) stream: UnixStream,
    pub(super) costs: RestoreCosts,
}

impl PausedFork {
    /// The worker's process id.
    pub fn pid(&self) -> i32 {
        self.worker.pid()
    }

    /// System calls, page faults and time of the restore.
    pub fn costs(&self) -> RestoreCosts {
        self.costs
    }

    /// True if the worker has ended while the fork waited. Costs a system call.
    pub fn is_dead(&self) -> bool {
        use futures_util::FutureExt;
        // The worker of a paused fork sends nothing but its end.
        self.worker.event().now_or_never().is_some()
    }

    /// Lets the vCPUs run. The returned stream is the connection on which the saved agent waits for a request,
    /// which may be sent at once: a failed resume is reported like the end of a VM.
    ///
    /// The agent is still an exact copy of the template's. Send it an identity first
    /// ([`crate::guest::new_identity`]).
    pub fn resume(self) -> Result<(Worker, Box<dyn AgentStream>), Failure> {
        self.worker.send(&Request::Resume, &[])?;
        Ok((self.worker, Box::new(self.stream)))
    }

    /// Kills the worker, off the async threads.
    pub async fn stop(self) {
        self.worker.stop().await;
    }
}

/// A paused fork with everything that its execution will need.
pub struct PooledFork {
    /// The worker and the stream.
    pub fork: PausedFork,
    /// The TAP and address of a fork with a network device. Declared after the worker, which is dropped first.
    pub attached: Option<Attached>,
    /// The console of the resumed guest.
    pub console: Console,
    /// The template of the fork.
    pub template: Arc<Template>,
}

impl PooledFork {
    /// Kills the worker and releases the address.
    pub async fn stop(self) {
        self.fork.stop().await;
        release(self.attached).await;
    }
}
