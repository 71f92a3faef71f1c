//! Reports on templates, and builds and removals on request.

use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cloude_protocol::api::{TemplateInfo, TemplateState};

use super::entry::{Entry, PermitWaiver, State};
use super::forks::{Begin, Forks};
use super::status::{PoolCounts, TemplateLabel, TemplateStatus};
use crate::snapshot::Template;
use crate::worker::PooledFork;

impl Forks {
    /// Counts since the start.
    pub fn counts(&self) -> PoolCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Labels a template whose build has begun.
    pub fn describe(&self, id: &str, label: TemplateLabel) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.label = Some(label);
            entry.since = SystemTime::now();
        }
    }

    /// The status of a template. Does not count as demand.
    pub fn status(&self, id: &str) -> TemplateStatus {
        match self.entries().get(id).map(|entry| &entry.state) {
            None => TemplateStatus::Unknown,
            Some(State::Building(_)) => TemplateStatus::Building,
            Some(State::Ready(_)) => TemplateStatus::Ready,
            Some(State::Failed { message, .. }) => TemplateStatus::Failed(message.clone()),
        }
    }

    /// Begins a build of a template that is neither ready nor being built, even right after a failure.
    pub fn begin(&self, id: &str, default_machine: bool) -> Begin {
        let mut entries = self.entries();
        match entries.get(id).map(|entry| &entry.state) {
            Some(State::Building(_) | State::Ready(_)) => Begin::NotNeeded,
            None | Some(State::Failed { .. }) if self.building(&entries) >= self.templates => {
                Begin::TooMany
            }
            None | Some(State::Failed { .. }) => {
                let waiver = PermitWaiver::new();
                self.begin_entry(&mut entries, id, default_machine, waiver.clone());
                Begin::Caller(waiver)
            }
        }
    }

    /// Drops a template that is not being built. Returns its paused forks, if it existed.
    pub fn remove(&self, id: &str) -> Option<Vec<PooledFork>> {
        let mut entries = self.entries();
        if matches!(entries.get(id)?.state, State::Building(_)) {
            return None;
        }
        let entry = entries.remove(id)?;
        drop(entries);
        self.notify();
        Some(entry.waiting.into())
    }

    /// Records the private memory of a paused fork.
    pub fn measured(&self, id: &str, kib: u64) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.fork_kib = Some(kib);
        }
    }

    /// Counts a fork.
    pub fn made(&self, id: &str) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.forks += 1;
        }
    }

    /// Bytes that the ready templates hold and the host cannot reclaim. One fstat(2) a template.
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

    /// All templates by language, with `disk_bytes` 0.
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
        let TemplateLabel { language, shape } = entry.label.clone()?;
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

/// The anonymous memory of a process in KiB, with copied pages of private mappings; `None` if the process has
/// ended. `Private_*` of smaps would also count template pages that only this process happens to map.
pub fn private_kib(pid: i32) -> Option<u64> {
    parse_anonymous(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse_anonymous(rollup: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    // Swapped-out pages are not in `Anonymous`.
    Some(value("Anonymous:")? + value("Swap:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_anonymous_and_swapped_pages() {
        let rollup =
            "Rss:      900 kB\nPrivate_Clean:  300 kB\nAnonymous:     120 kB\nSwap:   4 kB\n";
        assert_eq!(parse_anonymous(rollup), Some(124));
        assert_eq!(parse_anonymous("Rss: 1 kB\n"), None);
    }

    #[test]
    fn only_written_pages_are_private_memory() {
        let pid = std::process::id() as i32;
        let before = private_kib(pid).unwrap();
        let written = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = private_kib(pid).unwrap();
        assert!(after >= before + (48 << 10), "{before} {after}");
        drop(written);
        assert_eq!(private_kib(-1), None);
    }
}
