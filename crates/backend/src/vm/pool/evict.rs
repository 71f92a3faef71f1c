//! Which templates give way to others.

use std::collections::HashMap;

use super::entry::{Entry, State};
use super::{Forks, Paused};

/// The most templates that could not be built of which the reason is remembered.
const MOST_FAILED: usize = 32;

impl Forks {
    /// Forgets templates until as many are left as may be, with no more memory than they may hold. Those that
    /// are pinned go last, those that were not used for longest go first, and `newest` stays.
    pub(super) fn evict(&self, entries: &mut HashMap<String, Entry>, newest: &str) -> Vec<Paused> {
        let since = self.started.elapsed();
        let mut dropped = Vec::new();
        loop {
            let ready: Vec<(&String, &Entry, u64)> = entries
                .iter()
                .filter_map(|(id, entry)| match &entry.state {
                    State::Ready(template) => Some((id, entry, template.held_bytes())),
                    _ => None,
                })
                .collect();
            let held: u64 = ready.iter().map(|(_, _, held)| held).sum();
            let over_memory = held > self.held_limit;
            if ready.len() <= self.templates && !over_memory {
                break;
            }
            let least = ready
                .iter()
                .filter(|(id, _, held)| *id != newest && (*held > 0 || !over_memory))
                .min_by_key(|(_, entry, _)| {
                    let pinned = entry.is_pinned(since, &self.bounds);
                    (pinned, entry.demand.last_use())
                })
                .map(|(id, _, _)| (*id).clone());
            let Some(entry) = least.and_then(|id| entries.remove(&id)) else {
                break;
            };
            dropped.extend(entry.waiting);
        }
        dropped
    }
}

/// Forgets the oldest of the templates that could not be built, beyond [`MOST_FAILED`].
pub(super) fn forget_failed(entries: &mut HashMap<String, Entry>) {
    let failed = |entry: &Entry| matches!(entry.state, State::Failed { .. });
    while entries.values().filter(|entry| failed(entry)).count() > MOST_FAILED {
        let oldest = entries
            .iter()
            .filter(|(_, entry)| failed(entry))
            .min_by_key(|(_, entry)| entry.since)
            .map(|(id, _)| id.clone());
        if let Some(id) = oldest {
            entries.remove(&id);
        }
    }
}
