//! The state of one template: its build, its paused forks, its demand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::policy::{Bounds, Demand};
use super::status::TemplateLabel;
use crate::snapshot::Template;
use crate::worker::PooledFork;

/// The execution that looks a template up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// It asks for the default machine of its language. Such a template is built at the first request, and is not
    /// evicted while it is in use.
    pub default_machine: bool,
    /// It must be forked, and waits for the build. The VM permit that it holds covers the build's VM.
    pub fork_required: bool,
}

/// The result of a lookup.
pub enum Found {
    /// A paused fork from the pool.
    Fork(Box<PooledFork>),
    /// The template; no paused fork of it is ready.
    Ready(Arc<Template>),
    /// A build is in progress.
    Building,
    /// The last build failed, for this reason, and it is too early to try again.
    Failed(String),
    /// There is no template, and none is built now: too few executions asked for such a machine, or too many
    /// builds wait.
    None,
    /// The caller must build the template, and call [`super::forks::Forks::built`].
    Begin(PermitWaiver),
}

/// Cancelled once an execution that holds a VM permit waits for the build: the build then runs under that permit.
pub type PermitWaiver = CancellationToken;

/// The build of a template.
pub enum State {
    Building(PermitWaiver),
    Ready(Arc<Template>),
    Failed { message: String, until: Instant },
}

/// All that the pool knows of a template.
pub struct Entry {
    pub state: State,
    pub default_machine: bool,
    pub waiting: VecDeque<PooledFork>,
    /// Each fork that is being made holds a clone.
    pub making: Arc<()>,
    pub demand: Demand,
    /// Failed builds since the last success.
    pub failed_builds: u32,
    /// Failed forks since the last success.
    pub failed_forks: u32,
    /// True once a fork of the template has worked.
    pub proven: bool,
    pub label: Option<TemplateLabel>,
    /// The time of the last change of `state`.
    pub since: SystemTime,
    /// The number of forks made.
    pub forks: u64,
    /// Executions that found a paused fork.
    pub hits: u64,
    /// Private memory of a paused fork in KiB, as last measured.
    pub fork_kib: Option<u64>,
}

impl Entry {
    /// A template that is being built.
    pub fn new() -> Self {
        Entry {
            state: State::Building(PermitWaiver::new()),
            default_machine: false,
            waiting: VecDeque::new(),
            making: Arc::default(),
            demand: Demand::default(),
            failed_builds: 0,
            failed_forks: 0,
            proven: false,
            label: None,
            since: SystemTime::now(),
            forks: 0,
            hits: 0,
            fork_kib: None,
        }
    }

    pub fn is(&self, template: &Arc<Template>) -> bool {
        matches!(&self.state, State::Ready(own) if Arc::ptr_eq(own, template))
    }

    /// True for a default machine that is in use: evicted after all others.
    pub fn is_pinned(&self, since: Duration, bounds: &Bounds) -> bool {
        let in_use = match self.state {
            State::Building(_) => true,
            State::Ready(_) => {
                let last_use = self.demand.last_use();
                last_use.is_some_and(|last| since.saturating_sub(last) < bounds.idle)
            }
            State::Failed { .. } => false,
        };
        self.default_machine && in_use
    }

    /// The number of forks that are being made.
    pub fn making(&self) -> usize {
        Arc::strong_count(&self.making) - 1
    }

    /// Looks it up for an execution. `None` if it may be built again after a failure.
    pub fn find(
        &mut self,
        now: Instant,
        since: Duration,
        bounds: &Bounds,
        lookup: Lookup,
    ) -> Option<Found> {
        match &self.state {
            State::Building(waiver) => {
                if lookup.fork_required {
                    waiver.cancel();
                }
                Some(Found::Building)
            }
            State::Failed { message, until } if now < *until => {
                Some(Found::Failed(message.clone()))
            }
            State::Failed { .. } => None,
            State::Ready(template) => {
                self.demand.take(since, bounds);
                // A fork whose worker was killed while it waited is dropped, which reaps the worker.
                while let Some(paused) = self.waiting.pop_front() {
                    if !paused.fork.is_dead() {
                        self.hits += 1;
                        return Some(Found::Fork(Box::new(paused)));
                    }
                }
                Some(Found::Ready(Arc::clone(template)))
            }
        }
    }
}
