//! One template: where it stands, its paused forks, and what an execution finds of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::list::About;
use super::policy::{Bounds, Demand};
use super::{Paused, Template};

/// Who asks for a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// It is of the machine that its language has unless a request says otherwise. Its template is built at
    /// the first request, and does not give way to those of other machines while it is in use.
    pub default_machine: bool,
    /// The execution is forked or fails. It waits for the build, and the permit for its own VM, which it has
    /// already, covers the build's VM.
    pub must: bool,
}

/// What there is for an execution.
pub enum Found {
    /// A fork that waited.
    Paused(Box<Paused>),
    /// A template, and no fork of it that waits.
    Ready(Arc<Template>),
    /// Somebody builds it.
    Building,
    /// It could not be built, and it is too early to try again.
    Failed(String),
    /// There is none, and none is built now: too few have asked for such a machine, or too many builds wait.
    None,
    /// Nobody has begun: the caller now does, and says how it went ([`super::Forks::built`]).
    Begin(Covered),
}

/// Cancelled when an execution that holds a permit for a VM waits for a build: the build then needs no permit
/// of its own.
pub type Covered = CancellationToken;

pub(super) enum State {
    Building(Covered),
    Ready(Arc<Template>),
    Failed { message: String, until: Instant },
}

pub(super) struct Entry {
    pub(super) state: State,
    pub(super) default_machine: bool,
    pub(super) waiting: VecDeque<Paused>,
    /// Has one clone for each fork that is being made.
    pub(super) making: Arc<()>,
    pub(super) demand: Demand,
    /// Builds in a row that failed.
    pub(super) failed_builds: u32,
    /// Forks in a row that failed.
    pub(super) failed_forks: u32,
    /// Has any fork of the template done what it should?
    pub(super) proven: bool,
    pub(super) about: Option<About>,
    /// When it got into its state.
    pub(super) since: SystemTime,
    /// Forks that were made.
    pub(super) forks: u64,
    /// Executions that found a fork that waited.
    pub(super) hits: u64,
    /// What a waiting fork takes for itself, in KiB, as last measured.
    pub(super) fork_kib: Option<u64>,
}

impl Entry {
    /// One that is being built.
    pub(super) fn new() -> Self {
        Entry {
            state: State::Building(Covered::new()),
            default_machine: false,
            waiting: VecDeque::new(),
            making: Arc::default(),
            demand: Demand::default(),
            failed_builds: 0,
            failed_forks: 0,
            proven: false,
            about: None,
            since: SystemTime::now(),
            forks: 0,
            hits: 0,
            fork_kib: None,
        }
    }

    pub(super) fn is(&self, template: &Arc<Template>) -> bool {
        matches!(&self.state, State::Ready(own) if Arc::ptr_eq(own, template))
    }

    /// Whether it does not give way to templates of other machines: it is of a default machine, and in use.
    pub(super) fn is_pinned(&self, since: Duration, bounds: &Bounds) -> bool {
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

    /// How many forks are being made.
    pub(super) fn making(&self) -> usize {
        Arc::strong_count(&self.making) - 1
    }

    /// None where it may be built again.
    pub(super) fn find(
        &mut self,
        now: Instant,
        since: Duration,
        bounds: &Bounds,
        ask: Ask,
    ) -> Option<Found> {
        match &self.state {
            State::Building(covered) => {
                if ask.must {
                    covered.cancel();
                }
                Some(Found::Building)
            }
            State::Failed { message, until } if now < *until => {
                Some(Found::Failed(message.clone()))
            }
            State::Failed { .. } => None,
            State::Ready(template) => {
                self.demand.take(since, bounds);
                // One whose worker was killed while it waited is left out; dropping it reaps it.
                while let Some(paused) = self.waiting.pop_front() {
                    if !paused.fork.is_dead() {
                        self.hits += 1;
                        return Some(Found::Paused(Box::new(paused)));
                    }
                }
                Some(Found::Ready(Arc::clone(template)))
            }
        }
    }
}
