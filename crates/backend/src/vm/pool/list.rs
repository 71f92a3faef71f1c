//! What there is to see of templates, and their coming and going on request.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cloude_protocol::api::{TemplateInfo, TemplateState};

use super::entry::{Covered, Entry, State};
use super::{Begin, Forks, Paused, Template};
use crate::vm::fork::Shape;

/// stat(2) counts blocks of so many bytes whatever the file system's own are.
const BLOCK: u64 = 512;

/// What a template is of, for whoever looks at it.
#[derive(Clone, Debug)]
pub struct About {
    /// The language's own name.
    pub language: String,
    /// Its machine.
    pub shape: Shape,
}

/// What became of templates and forks since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Templates that were booted, warmed and saved.
    pub built: u64,
    /// Templates that came from the disk.
    pub loaded: u64,
    /// Builds that failed.
    pub failed_builds: u64,
    /// Templates that were forgotten because their forks failed.
    pub given_up: u64,
    /// Forks that failed before they ran anything.
    pub failed_forks: u64,
}

/// Where a template stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has asked for it.
    Unknown,
    /// Somebody builds it.
    Building,
    /// It can be forked.
    Ready,
    /// Why it could not be built.
    Failed(String),
}

impl Template {
    /// What its memory takes, in bytes: zero pages that were never written are holes.
    pub fn resident_bytes(&self) -> u64 {
        let metadata = self.snapshot.memory.metadata();
        metadata.map_or(0, |metadata| metadata.blocks() * BLOCK)
    }

    /// What of that the host cannot reclaim: all of a memfd, and nothing of a file on the disk.
    pub fn held_bytes(&self) -> u64 {
        if self.loaded {
            0
        } else {
            self.resident_bytes()
        }
    }
}

impl Forks {
    /// What became of them.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says what the template is of whose build has begun.
    pub fn describe(&self, id: &str, about: About) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.about = Some(about);
            entry.since = SystemTime::now();
        }
    }

    /// Where the template stands. Counts as no demand.
    pub fn standing(&self, id: &str) -> Standing {
        match self.entries().get(id).map(|entry| &entry.state) {
            None => Standing::Unknown,
            Some(State::Building(_)) => Standing::Building,
            Some(State::Ready(_)) => Standing::Ready,
            Some(State::Failed { message, .. }) => Standing::Failed(message.clone()),
        }
    }

    /// Begins a build of a template that is neither ready nor being built, however lately it failed.
    pub fn begin(&self, id: &str, default_machine: bool) -> Begin {
        let mut entries = self.entries();
        match entries.get(id).map(|entry| &entry.state) {
            Some(State::Building(_) | State::Ready(_)) => Begin::Theirs,
            None | Some(State::Failed { .. }) if self.building(&entries) >= self.templates => {
                Begin::TooMany
            }
            None | Some(State::Failed { .. }) => {
                let covered = Covered::new();
                self.begin_entry(&mut entries, id, default_machine, covered.clone());
                Begin::Yours(covered)
            }
        }
    }

    /// Forgets a template that is not being built. Gives its forks, if there was one.
    pub fn remove(&self, id: &str) -> Option<Vec<Paused>> {
        let mut entries = self.entries();
        if matches!(entries.get(id)?.state, State::Building(_)) {
            return None;
        }
        let entry = entries.remove(id)?;
        drop(entries);
        self.notify();
        Some(entry.waiting.into())
    }

    /// What a waiting fork of the template holds of its own, as measured.
    pub fn measured(&self, id: &str, kib: u64) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.fork_kib = Some(kib);
        }
    }

    /// Counts a fork that was made.
    pub fn made(&self, id: &str) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.forks += 1;
        }
    }

    /// The memory of all templates that are ready which the host cannot reclaim, in bytes. A few system calls.
    pub fn held_bytes(&self) -> u64 {
        let templates: Vec<Arc<Template>> = self
            .entries()
            .values()
            .filter_map(|entry| match &entry.state {
                State::Ready(template) => Some(Arc::clone(template)),
                _ => None,
            })
            .collect();
        templates.iter().map(|t| t.held_bytes()).sum()
    }

    /// All of them, by language. What they take on the disk is not filled in.
    pub fn list(&self) -> Vec<TemplateInfo> {
        let now = Instant::now();
        let entries = self.entries();
        let mut list: Vec<TemplateInfo> = entries
            .iter()
            .filter_map(|(id, entry)| self.info(id, entry, now))
            .collect();
        drop(entries);
        list.sort_by(|a, b| (&a.language, &a.id).cmp(&(&b.language, &b.id)));
        list
    }

    fn info(&self, id: &str, entry: &Entry, now: Instant) -> Option<TemplateInfo> {
        let About { language, shape } = entry.about.clone()?;
        let (state, reason, memory_bytes) = match &entry.state {
            State::Building(_) => (TemplateState::Building, None, 0),
            State::Ready(template) => (TemplateState::Ready, None, template.resident_bytes()),
            State::Failed { message, .. } => (TemplateState::Failed, Some(message.clone()), 0),
        };
        let created = entry.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last_used = entry.demand.last_use();
        Some(TemplateInfo {
            id: id.to_owned(),
            language,
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            network: shape.network,
            state,
            reason,
            created_ms: u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
            age_s: entry.since.elapsed().unwrap_or_default().as_secs(),
            last_used_s: last_used.map(|last| (now - self.started).saturating_sub(last).as_secs()),
            waiting: entry.waiting.len(),
            forks: entry.forks,
            hits: entry.hits,
            memory_bytes,
            disk_bytes: 0,
            fork_kib: entry.fork_kib,
        })
    }
}

/// What a process holds of its own, in KiB: its anonymous pages, which are what it wrote, the pages of a
/// private mapping that it copied among them. The kernel's `Private_*` counts also a page of the
/// template that this process alone happens to map. None if the process has gone.
pub fn private_kib(pid: i32) -> Option<u64> {
    parse_anonymous(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse_anonymous(rollup: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    // What was swapped out is no page any more.
    Some(value("Anonymous:")? + value("Swap:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_its_anonymous_and_swapped_pages() {
        let rollup =
            "Rss:      900 kB\nPrivate_Clean:  300 kB\nAnonymous:     120 kB\nSwap:   4 kB\n";
        assert_eq!(parse_anonymous(rollup), Some(124));
        assert_eq!(parse_anonymous("Rss: 1 kB\n"), None);
    }

    #[test]
    fn pages_that_were_written_are_counted_and_pages_that_were_not_are_not() {
        let pid = std::process::id() as i32;
        let before = private_kib(pid).unwrap();
        let written = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = private_kib(pid).unwrap();
        assert!(after >= before + (48 << 10), "{before} {after}");
        drop(written);
        assert_eq!(private_kib(-1), None);
    }
}
