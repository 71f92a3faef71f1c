//! What the pool makes and stops next.

use std::sync::Arc;

use super::entry::{Entry, State};
use super::policy::{Step, Wish, share, step};
use super::{FORK_KIB, Forks, Paused, Template};

/// A fork that the pool lacks.
pub struct Make {
    /// The template's id.
    pub id: String,
    /// The template.
    pub template: Arc<Template>,
    /// The fork counts as being made until this is dropped.
    pub making: Arc<()>,
}

/// What to make and to stop for the pool to be as its policy wants it.
pub struct Plan {
    /// All of these at once.
    pub make: Vec<Make>,
    /// To be stopped.
    pub stop: Vec<Paused>,
}

impl Forks {
    /// What the pool lacks, and what it has too much. At most `at_once` forks are being made, those of this
    /// plan included: in turns, one of each template that lacks some.
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
        let given = share(&wishes, self.budget_kib);
        let mut stop = Vec::new();
        let mut lacks = vec![0; all.len()];
        for (index, (_, entry)) in all.iter_mut().enumerate() {
            let ready = entry.waiting.len() + entry.making();
            match step(ready, given[index], wishes[index].target) {
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
