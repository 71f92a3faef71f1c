//! The templates of a server, and the paused forks of each that wait for executions.
//!
//! This is state alone: whoever holds a [`Forks`] builds, forks and stops (`vm::forking`).

mod entry;
mod evict;
pub mod interest;
pub mod list;
mod plan;
pub mod policy;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

pub use self::entry::{Ask, Covered, Found};
use self::entry::{Entry, State};
use self::evict::forget_failed;
use self::interest::Interest;
pub use self::plan::{Make, Plan};
use self::policy::Bounds;
use super::console::Console;
use super::fork::{Fork, Shape, Snapshot, WorkingSet};
use crate::config;
use crate::network::Attached;
use crate::store::Store;

/// Forks of one template that may fail in a row before it is built anew.
const FAILURES: u32 = 3;
/// A template that could not be built is not tried again for so long, doubled each time.
const RETRY: Duration = Duration::from_secs(10);
/// The longest that it becomes.
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// Private memory of a paused fork in KiB, until one was measured: its state, page tables and the process.
const FORK_KIB: u64 = 1024;

/// A saved VM that was warmed.
#[derive(Debug)]
pub struct Template {
    /// What forks are made of.
    pub snapshot: Snapshot,
    /// What its agent asks for, until an identity replaces it.
    pub token: String,
    /// What shells it fits.
    pub shape: Shape,
    /// It was not built here and now, but comes from the disk. Its memory is then page cache, which the
    /// host's kernel can reclaim.
    pub loaded: bool,
    /// The pages that its forks touch, once one of them has shown them.
    pub working_set: OnceLock<WorkingSet>,
}

/// A fork that waits.
pub struct Paused {
    /// Its worker and stream.
    pub fork: Fork,
    /// Its own network, where the shape has one; behind the worker, so that it is dropped after it.
    pub attached: Option<Attached>,
    /// What its guest says once it runs.
    pub console: Console,
    /// What it was made of.
    pub template: Arc<Template>,
}

impl Paused {
    /// Ends it, and waits until nothing of it is left.
    pub async fn stop(self, store: &Store) {
        let pid = self.fork.pid();
        self.fork.stop().await;
        store.worker_ended(pid);
        if let Some(attached) = self.attached {
            attached.release().await;
        }
    }
}

/// The answer to [`Forks::begin`].
pub enum Begin {
    /// The caller builds it.
    Yours(Covered),
    /// It is ready, or somebody builds it.
    Theirs,
    /// As many builds wait as may.
    TooMany,
}

/// All templates of a server.
pub struct Forks {
    bounds: Bounds,
    budget_kib: u64,
    /// The most templates, and the most builds that run or wait.
    templates: usize,
    /// Bytes that templates may hold in memory which the host cannot reclaim.
    held_limit: u64,
    started: Instant,
    entries: Mutex<HashMap<String, Entry>>,
    interest: Mutex<Interest>,
    changed: watch::Sender<u64>,
    counts: Mutex<list::Counts>,
}

impl Forks {
    /// None yet. Their templates may hold so much memory that the host cannot reclaim.
    pub fn new(config: &config::Pool, held_limit_mib: u64) -> Self {
        Forks {
            bounds: Bounds {
                floor: config.floor,
                ceiling: config.ceiling,
                window: Duration::from_secs(2),
                idle: Duration::from_secs(config.idle_s),
            },
            budget_kib: config.memory_mib << 10,
            templates: config.templates,
            held_limit: held_limit_mib << 20,
            started: Instant::now(),
            entries: Mutex::default(),
            interest: Mutex::new(Interest::new(
                config.build_after,
                Duration::from_secs(config.build_window_s),
            )),
            changed: watch::Sender::new(0),
            counts: Mutex::default(),
        }
    }

    /// Says when anything has changed: a template, or the demand for forks.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What there is of a template. Counts as demand.
    pub fn find(&self, id: &str, ask: Ask) -> Found {
        let now = Instant::now();
        let since = now - self.started;
        let mut entries = self.entries();
        let found = match entries.get_mut(id) {
            Some(entry) => entry.find(now, since, &self.bounds, ask),
            None => None,
        };
        let found = match found {
            Some(found) => found,
            None if self.may_build(&entries, id, since, ask) => {
                let covered = Covered::new();
                if ask.must {
                    covered.cancel();
                }
                self.begin_entry(&mut entries, id, ask.default_machine, covered.clone());
                Found::Begin(covered)
            }
            None => Found::None,
        };
        drop(entries);
        // Nothing has changed for those who wait for a build, of whom the caller may be one.
        if matches!(found, Found::Paused(_) | Found::Ready(_) | Found::Begin(_)) {
            self.notify();
        }
        found
    }

    /// Whether a template that does not exist is to be built now.
    fn may_build(
        &self,
        entries: &HashMap<String, Entry>,
        id: &str,
        since: Duration,
        ask: Ask,
    ) -> bool {
        if ask.must {
            // Bounded by the permits: each of these executions has one, and waits.
            return true;
        }
        if !ask.default_machine {
            let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
            // Templates of default machines do not give way to this one.
            let pinned = entries
                .values()
                .filter(|entry| entry.is_pinned(since, &self.bounds));
            if !interest.ask(id, since) || pinned.count() >= self.templates {
                return false;
            }
        }
        self.building(entries) < self.templates
    }

    fn building(&self, entries: &HashMap<String, Entry>) -> usize {
        let building = |entry: &&Entry| matches!(entry.state, State::Building(_));
        entries.values().filter(building).count()
    }

    /// Makes the template one that is being built, keeping what is known of earlier builds.
    fn begin_entry(
        &self,
        entries: &mut HashMap<String, Entry>,
        id: &str,
        default_machine: bool,
        covered: Covered,
    ) {
        self.interest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(id);
        let entry = entries.entry(id.to_owned()).or_insert_with(Entry::new);
        entry.state = State::Building(covered);
        entry.default_machine = default_machine;
    }

    /// The build that was begun is not done after all, for want of a place in the queue.
    pub fn abandon(&self, id: &str) {
        let mut entries = self.entries();
        if entries
            .get(id)
            .is_some_and(|entry| matches!(entry.state, State::Building(_)))
        {
            entries.remove(id);
        }
        drop(entries);
        self.notify();
    }

    /// How the build went that [`Found::Begin`] began. Gives what there is to stop: forks of templates
    /// that there is no room for any more.
    pub fn built(&self, id: &str, result: Result<Arc<Template>, String>) -> Vec<Paused> {
        let now = Instant::now();
        self.count(|counts| match &result {
            Ok(template) if template.loaded => counts.loaded += 1,
            Ok(_) => counts.built += 1,
            Err(_) => counts.failed_builds += 1,
        });
        let mut entries = self.entries();
        let entry = entries.entry(id.to_owned()).or_insert_with(Entry::new);
        entry.since = SystemTime::now();
        match result {
            Ok(template) => {
                entry.state = State::Ready(template);
                entry.failed_builds = 0;
                entry.failed_forks = 0;
                entry.proven = false;
                entry.demand.touch(now - self.started, &self.bounds);
            }
            Err(message) => {
                let wait = RETRY * 2_u32.saturating_pow(entry.failed_builds.min(16));
                entry.failed_builds += 1;
                entry.state = State::Failed {
                    message,
                    until: now + wait.min(LONGEST_RETRY),
                };
            }
        }
        let dropped = self.evict(&mut entries, id);
        forget_failed(&mut entries);
        drop(entries);
        self.notify();
        dropped
    }

    /// A fork of the template did what it should.
    pub fn worked(&self, id: &str) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.failed_forks = 0;
            entry.proven = true;
        }
    }

    /// A fork of the template failed before it ran anything. After some in a row, or the very first of
    /// one that comes from the disk, the template is forgotten, so that the next execution builds it
    /// anew; gives whether it was, and its forks. Before anybody can begin that, `forget` is called:
    /// it must not wait.
    pub fn failed(&self, id: &str, forget: impl FnOnce()) -> Option<Vec<Paused>> {
        let mut entries = self.entries();
        let entry = entries.get_mut(id)?;
        entry.failed_forks += 1;
        self.count(|counts| counts.failed_forks += 1);
        let unproven =
            matches!(&entry.state, State::Ready(template) if template.loaded) && !entry.proven;
        if entry.failed_forks < FAILURES && !unproven {
            return None;
        }
        forget();
        let entry = entries.remove(id)?;
        drop(entries);
        self.count(|counts| counts.given_up += 1);
        self.notify();
        Some(entry.waiting.into())
    }

    /// Puts a new fork to those that wait; gives it back if its template has gone meanwhile.
    pub fn put(&self, id: &str, paused: Paused) -> Option<Paused> {
        let mut entries = self.entries();
        match entries.get_mut(id) {
            Some(entry) if entry.is(&paused.template) => {
                entry.waiting.push_back(paused);
                drop(entries);
                self.notify();
                None
            }
            _ => Some(paused),
        }
    }

    /// Takes a fork that has a network from the template that was not used for longest, so that its address
    /// is free for an execution.
    pub fn give_way(&self) -> Option<Paused> {
        let mut entries = self.entries();
        let entry = entries
            .values_mut()
            .filter(|entry| entry.waiting.iter().any(|paused| paused.attached.is_some()))
            .min_by_key(|entry| entry.demand.last_use())?;
        // All of a template's forks have one or none.
        entry.waiting.pop_back()
    }

    /// Forgets everything; gives the forks to stop.
    pub fn clear(&self) -> Vec<Paused> {
        let mut entries = self.entries();
        let all = entries.drain().flat_map(|(_, entry)| entry.waiting);
        all.collect()
    }

    /// How many forks wait, over all templates.
    pub fn waiting(&self) -> usize {
        self.entries()
            .values()
            .map(|entry| entry.waiting.len())
            .sum()
    }
}

#[cfg(test)]
mod tests;
