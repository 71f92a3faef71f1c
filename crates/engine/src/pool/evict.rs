//! Evicts templates.

use std::collections::HashMap;
use std::time::Duration;

use super::entry::{Entry, State};
use super::policy::Bounds;
use crate::worker::PooledFork;

/// Failed builds whose reason is remembered, at most.
const MAX_FAILED: usize = 32;

/// The limits that evictions enforce.
pub struct Limits<'a> {
    /// The largest number of templates.
    pub templates: usize,
    /// The largest number of bytes that they hold and the host cannot reclaim.
    pub held_bytes: u64,
    /// Decides which templates are in use.
    pub bounds: &'a Bounds,
    /// Since the start.
    pub now: Duration,
}

/// Removes templates until the limits are met: the least recently used first, default machines in use last,
/// `newest` never. Returns their paused forks.
pub fn evict(
    entries: &mut HashMap<String, Entry>,
    newest: &str,
    limits: &Limits<'_>,
) -> Vec<PooledFork> {
    let mut evicted = Vec::new();
    loop {
        let ready: Vec<(&String, &Entry, u64)> = entries
            .iter()
            .filter_map(|(id, entry)| match &entry.state {
                State::Ready(template) => Some((id, entry, template.held_bytes())),
                _ => None,
            })
            .collect();
        let held: u64 = ready.iter().map(|(_, _, held)| held).sum();
        let over_memory = held > limits.held_bytes;
        if ready.len() <= limits.templates && !over_memory {
            break;
        }
        let first = ready
            .iter()
            .filter(|(id, _, held)| *id != newest && (*held > 0 || !over_memory))
            .min_by_key(|(_, entry, _)| {
                let pinned = entry.is_pinned(limits.now, limits.bounds);
                (pinned, entry.demand.last_use())
            })
            .map(|(id, _, _)| (*id).clone());
        let Some(entry) = first.and_then(|id| entries.remove(&id)) else {
            break;
        };
        evicted.extend(entry.waiting);
    }
    evicted
}

/// Forgets the oldest failed builds beyond [`MAX_FAILED`].
pub fn forget_failed(entries: &mut HashMap<String, Entry>) {
    let failed = |entry: &Entry| matches!(entry.state, State::Failed { .. });
    while entries.values().filter(|entry| failed(entry)).count() > MAX_FAILED {
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
