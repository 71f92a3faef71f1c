//! Which forks the pool makes and stops next.

use std::sync::Arc;

use super::entry::{Entry, State};
use super::forks::Forks;
use super::policy::{Step, Wish, share, step};
use crate::snapshot::Template;
use crate::worker::PooledFork;

/// Private memory of a paused fork in KiB until one was measured: VM state, page tables and the process.
const FORK_KIB: u64 = 1024;

/// A fork to make.
pub struct Make {
    /// The template's id.
    pub id: String,
    /// The template.
    pub template: Arc<Template>,
    /// The fork counts as being made until this value is dropped.
    pub making: Arc<()>,
}

/// The difference between the pool and its policy.
pub struct Plan {
    /// Forks to make, all at once.
    pub make: Vec<Make>,
    /// Paused forks to stop.
    pub stop: Vec<PooledFork>,
}

impl Forks {
    /// The forks to make and to stop. At most `at_once` forks are being made at a time, including those of this
    /// plan; templates that lack forks get one each in rotation.
    pub fn plan(&self, at_once: usize) -> Plan {
        let now = self.started.elapsed();
        let mut entries = self.entries();
        let mut all: Vec<(&String, &mut Entry)> = entries.iter_mut().collect();
        let wishes: Vec<Wish> = all
            .iter()
            .map(|(_, entry)| Wish {
                target: match entry.state {
                    State::Ready(_) => entry.demand.target(now, &self.bounds),
                    _ => 0,
                },
                fork_kib: entry.fork_kib.unwrap_or(FORK_KIB),
                last_use: entry.demand.last_use(),
            })
            .collect();
        let shares = share(&wishes, self.budget_kib);
        let mut stop = Vec::new();
        let mut lacks = vec![0; all.len()];
        for (index, (_, entry)) in all.iter_mut().enumerate() {
            let ready = entry.waiting.len() + entry.making();
            match step(ready, shares[index], wishes[index].target) {
                Step::Keep => {}
                Step::Make(count) => lacks[index] = count,
                Step::Drop(count) => {
                    let keep = entry.waiting.len().saturating_sub(count);
                    stop.extend(entry.waiting.drain(keep..));
                }
            }
        }
        let making: usize = all.iter().map(|(_, entry)| entry.making()).sum();
        let mut room = at_once.saturating_sub(making);
        let mut make = Vec::new();
        while room > 0 && lacks.iter().any(|lack| *lack > 0) {
            for ((id, entry), lack) in all.iter().zip(&mut lacks) {
                if let State::Ready(template) = &entry.state
                    && *lack > 0
                    && room > 0
                {
                    *lack -= 1;
                    room -= 1;
                    make.push(Make {
                        id: (*id).clone(),
                        template: Arc::clone(template),
                        making: Arc::clone(&entry.making),
                    });
                }
            }
        }
        Plan { make, stop }
    }
}
