//! The templates of an engine, and the paused forks of each: bookkeeping alone, without VMs or tasks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::entry::{Entry, Found, Lookup, PermitWaiver, State};
use super::evict::{Limits, evict, forget_failed};
use super::interest::Interest;
use super::policy::Bounds;
use super::status::PoolCounts;
use crate::config;
use crate::snapshot::Template;
use crate::worker::PooledFork;

/// A template is dropped after this many forks in a row failed.
const FAILURES: u32 = 3;
/// The delay before a failed build is tried again; doubled after each failure.
const RETRY: Duration = Duration::from_secs(10);
/// The longest such delay.
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// The result of [`Forks::begin`].
pub enum Begin {
    /// The caller must build the template, and call [`Forks::built`].
    Caller(PermitWaiver),
    /// The template is ready or being built.
    NotNeeded,
    /// `pool.templates` builds run or wait already.
    TooMany,
}

/// All templates of an engine.
pub struct Forks {
    pub(super) bounds: Bounds,
    pub(super) budget_kib: u64,
    /// The largest number of templates, and of builds that run or wait.
    pub(super) templates: usize,
    /// The largest number of bytes that templates hold and the host cannot reclaim.
    held_limit: u64,
    pub(super) started: Instant,
    entries: Mutex<HashMap<String, Entry>>,
    interest: Mutex<Interest>,
    changed: watch::Sender<u64>,
    pub(super) counts: Mutex<PoolCounts>,
}

impl Forks {
    /// No templates. They may hold up to `held_limit_mib` of memory that the host cannot reclaim.
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

    /// Changes when a template does, or the demand for forks.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn count(&self, change: impl FnOnce(&mut PoolCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks a template up for an execution. Counts as demand.
    pub fn find(&self, id: &str, lookup: Lookup) -> Found {
        let now = Instant::now();
        let since = now - self.started;
        let mut entries = self.entries();
        let found = match entries.get_mut(id) {
            Some(entry) => entry.find(now, since, &self.bounds, lookup),
            None => None,
        };
        let found = match found {
            Some(found) => found,
            None if self.may_build(&entries, id, since, lookup) => {
                let waiver = PermitWaiver::new();
                if lookup.fork_required {
                    waiver.cancel();
                }
                self.begin_entry(&mut entries, id, lookup.default_machine, waiver.clone());
                Found::Begin(waiver)
            }
            None => Found::None,
        };
        drop(entries);
        // Not after `Building`: a caller that waits for the build would wake itself.
        if matches!(found, Found::Fork(_) | Found::Ready(_) | Found::Begin(_)) {
            self.notify();
        }
        found
    }

    /// True if a template that does not exist should be built now.
    fn may_build(
        &self,
        entries: &HashMap<String, Entry>,
        id: &str,
        since: Duration,
        lookup: Lookup,
    ) -> bool {
        if lookup.fork_required {
            // Bounded by the VM permits: each of these executions holds one.
            return true;
        }
        if !lookup.default_machine {
            let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
            // Pinned templates are not evicted for this one.
            let pinned = entries
                .values()
                .filter(|entry| entry.is_pinned(since, &self.bounds));
            if !interest.ask(id, since) || pinned.count() >= self.templates {
                return false;
            }
        }
        self.building(entries) < self.templates
    }

    fn limits(&self) -> Limits<'_> {
        Limits {
            templates: self.templates,
            held_bytes: self.held_limit,
            bounds: &self.bounds,
            now: self.started.elapsed(),
        }
    }

    pub(super) fn building(&self, entries: &HashMap<String, Entry>) -> usize {
        let building = |entry: &&Entry| matches!(entry.state, State::Building(_));
        entries.values().filter(building).count()
    }

    /// Marks the template as being built. Its count of failed builds stays.
    pub(super) fn begin_entry(
        &self,
        entries: &mut HashMap<String, Entry>,
        id: &str,
        default_machine: bool,
        waiver: PermitWaiver,
    ) {
        self.interest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(id);
        let entry = entries.entry(id.to_owned()).or_insert_with(Entry::new);
        entry.state = State::Building(waiver);
        entry.default_machine = default_machine;
    }

    /// Undoes [`Forks::begin`]: the queue has no slot for the build's VM.
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

    /// Ends a build. Returns the paused forks of the templates that were evicted for this one; the caller stops
    /// them.
    pub fn built(&self, id: &str, result: Result<Arc<Template>, String>) -> Vec<PooledFork> {
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
        let dropped = evict(&mut entries, id, &self.limits());
        forget_failed(&mut entries);
        drop(entries);
        self.notify();
        dropped
    }

    /// A fork of the template worked.
    pub fn worked(&self, id: &str) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.failed_forks = 0;
            entry.proven = true;
        }
    }

    /// A fork of the template failed before it ran anything. Drops the template after [`FAILURES`] in a row, or
    /// after the first failure if it was loaded and no fork of it ever worked; the next execution then builds a
    /// new one. Returns the paused forks of a dropped template. Calls `forget` before another build can begin;
    /// it must not block.
    pub fn failed(&self, id: &str, forget: impl FnOnce()) -> Option<Vec<PooledFork>> {
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

    /// Adds a paused fork. Returns it if its template was dropped meanwhile.
    pub fn put(&self, id: &str, paused: PooledFork) -> Option<PooledFork> {
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

    /// Takes a paused fork with an address, from the least recently used template.
    pub fn take_attached(&self) -> Option<PooledFork> {
        let mut entries = self.entries();
        let entry = entries
            .values_mut()
            .filter(|entry| entry.waiting.iter().any(|paused| paused.attached.is_some()))
            .min_by_key(|entry| entry.demand.last_use())?;
        // Either all forks of a template have an address, or none has.
        entry.waiting.pop_back()
    }

    /// Drops all templates. Returns their paused forks.
    pub fn clear(&self) -> Vec<PooledFork> {
        let mut entries = self.entries();
        let all = entries.drain().flat_map(|(_, entry)| entry.waiting);
        all.collect()
    }
}

#[cfg(test)]
mod tests;
