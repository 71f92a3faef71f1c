//! Templates that are ready, built or failed, and the paused forks of each that wait for executions.
//!
//! State alone: whoever holds a [`Forks`] builds, forks and stops (`vm::forking`).

pub mod busy;
pub mod list;
pub mod policy;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use self::policy::{Bounds, Demand, Step, Wish, share, step};
use super::console::Console;
use super::fork::{Fork, Shape, Snapshot, WorkingSet};
use crate::config;
use crate::network::Attached;
use crate::store::Store;

/// So many forks of one template may fail in a row before it is built anew.
const FAILURES: u32 = 3;
/// How long a template that could not be built is not tried again: doubled each time.
const RETRY: Duration = Duration::from_secs(10);
/// The longest that it becomes.
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// What a paused fork takes for itself, as long as nobody measured one, in KiB: its state, page tables
/// and the process.
const FORK_KIB: u64 = 2048;

/// A saved VM that was warmed.
#[derive(Debug)]
pub struct Template {
    /// What forks are made of.
    pub snapshot: Snapshot,
    /// What its agent asks for, until an identity replaces it.
    pub token: String,
    /// What shells it fits.
    pub shape: Shape,
    /// It was not built here and now, but comes from the disk.
    pub loaded: bool,
    /// The pages that its forks touch, once one of them has shown it.
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
    /// Nobody has begun: the caller now does, and says how it went ([`Forks::built`]).
    Begin,
}

enum State {
    Building,
    Ready(Arc<Template>),
    Failed { message: String, until: Instant },
}

struct Entry {
    state: State,
    waiting: VecDeque<Paused>,
    demand: Demand,
    /// Builds in a row that failed.
    failed_builds: u32,
    /// Forks in a row that failed.
    failed_forks: u32,
    /// Has any fork of the template done what it should?
    proven: bool,
    about: Option<list::About>,
    /// When it got into its state.
    since: SystemTime,
    /// Forks that were made.
    forks: u64,
    /// Executions that found a fork that waited.
    hits: u64,
    /// What a waiting fork takes for itself, in KiB, as last measured.
    fork_kib: Option<u64>,
}

/// What to make and to stop, for the pool to be as it should.
pub struct Plan {
    /// A fork of each, in this order.
    pub make: Vec<(String, Arc<Template>)>,
    /// To be stopped.
    pub stop: Vec<Paused>,
}

/// All templates of a server.
pub struct Forks {
    bounds: Bounds,
    budget_kib: u64,
    templates: usize,
    started: Instant,
    entries: Mutex<HashMap<String, Entry>>,
    changed: watch::Sender<u64>,
    running: busy::Running,
    counts: Mutex<list::Counts>,
}

impl Forks {
    /// None yet.
    pub fn new(config: &config::Pool) -> Self {
        let changed = watch::Sender::new(0);
        Forks {
            running: busy::Running::new(changed.clone()),
            bounds: Bounds {
                floor: config.floor,
                ceiling: config.ceiling,
                window: Duration::from_secs(2),
                idle: Duration::from_secs(config.idle_s),
            },
            budget_kib: config.memory_mib << 10,
            templates: config.templates,
            started: Instant::now(),
            entries: Mutex::default(),
            changed,
            counts: Mutex::default(),
        }
    }

    /// A fork runs for somebody, until what this gives is dropped.
    pub fn busy(&self) -> busy::Busy {
        self.running.begin()
    }

    /// For how long the pool is not to be filled where it has forks left.
    pub fn hold(&self) -> Option<Duration> {
        self.running.hold()
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
    pub fn find(&self, id: &str) -> Found {
        let now = Instant::now();
        let mut entries = self.entries();
        let found = match entries.get_mut(id) {
            Some(entry) => entry.find(now, now - self.started, &self.bounds),
            None => {
                entries.insert(id.to_owned(), Entry::new());
                Found::Begin
            }
        };
        drop(entries);
        // Nothing has changed for those who wait for a build, of whom the caller may be one.
        if !matches!(found, Found::Building | Found::Failed(_)) {
            self.notify();
        }
        found
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
        let dropped = self.evict(&mut entries);
        drop(entries);
        self.notify();
        dropped
    }

    /// Forgets the templates that were not used for the longest time, past the most that are kept.
    fn evict(&self, entries: &mut HashMap<String, Entry>) -> Vec<Paused> {
        let mut dropped = Vec::new();
        let is_ready = |entry: &Entry| matches!(entry.state, State::Ready(_));
        while entries.values().filter(|entry| is_ready(entry)).count() > self.templates {
            let oldest = entries
                .iter()
                .filter(|(_, entry)| is_ready(entry))
                .min_by_key(|(_, entry)| entry.demand.last_use())
                .map(|(id, _)| id.clone());
            let Some(entry) = oldest.and_then(|id| entries.remove(&id)) else {
                break;
            };
            dropped.extend(entry.waiting);
        }
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
                None
            }
            _ => Some(paused),
        }
    }

    /// Has the fork of each template that is taken next get all the pages that it will touch: it starts
    /// sooner then. One alone, for the memory that it takes, and not beside executions that were just forked: it
    /// copies for as long as a short one of them takes.
    pub fn prefault_next(&self) {
        if self.hold().is_some() {
            return;
        }
        for entry in self.entries().values_mut() {
            if let Some(next) = entry.waiting.front_mut() {
                next.fork.prefault();
            }
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

    /// What the pool lacks, one fork of each template at most, and what it has too much.
    pub fn plan(&self) -> Plan {
        let now = self.started.elapsed();
        let held = self.hold().is_some();
        let mut plan = Plan {
            make: Vec::new(),
            stop: Vec::new(),
        };
        let mut entries = self.entries();
        let mut ready: Vec<(&String, &mut Entry)> = entries.iter_mut().collect();
        let wishes: Vec<Wish> = ready
            .iter()
            .map(|(_, entry)| {
                let (target, next_kib) = match &entry.state {
                    State::Ready(template) => {
                        let set = template.working_set.get();
                        let next_kib = set.map_or(0, WorkingSet::rest_kib);
                        (entry.demand.target(now, &self.bounds), next_kib)
                    }
                    _ => (0, 0),
                };
                Wish {
                    target,
                    fork_kib: entry.fork_kib.unwrap_or(FORK_KIB),
                    next_kib,
                    last_use: entry.demand.last_use(),
                }
            })
            .collect();
        let given = share(&wishes, self.budget_kib);
        for (((id, entry), given), wish) in ready.iter_mut().zip(given).zip(&wishes) {
            match step(entry.waiting.len(), given, wish.target) {
                Step::Keep => {}
                // While forks run that somebody waits for, it may do with half of them.
                Step::Make(_) if held && 2 * entry.waiting.len() >= given => {}
                Step::Make(_) => {
                    if let State::Ready(template) = &entry.state {
                        plan.make.push(((*id).clone(), Arc::clone(template)));
                    }
                }
                Step::Drop(count) => {
                    let keep = entry.waiting.len().saturating_sub(count);
                    plan.stop.extend(entry.waiting.drain(keep..));
                }
            }
        }
        plan
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

impl Entry {
    fn new() -> Self {
        Entry {
            state: State::Building,
            waiting: VecDeque::new(),
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

    fn is(&self, template: &Arc<Template>) -> bool {
        matches!(&self.state, State::Ready(own) if Arc::ptr_eq(own, template))
    }

    fn find(&mut self, now: Instant, since: Duration, bounds: &Bounds) -> Found {
        match &self.state {
            State::Building => Found::Building,
            State::Failed { message, until } if now < *until => Found::Failed(message.clone()),
            State::Failed { .. } => {
                self.state = State::Building;
                Found::Begin
            }
            State::Ready(template) => {
                self.demand.take(since, bounds);
                // One whose worker was killed while it waited is left out; dropping it reaps it.
                while let Some(paused) = self.waiting.pop_front() {
                    if !paused.fork.is_dead() {
                        self.hits += 1;
                        return Found::Paused(Box::new(paused));
                    }
                }
                Found::Ready(Arc::clone(template))
            }
        }
    }
}

#[cfg(test)]
mod tests;
