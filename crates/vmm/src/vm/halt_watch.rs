//! Notices that nothing can wake the guest: every vCPU halted with interrupts off.
//!
//! KVM keeps a halted vCPU to itself and tells nobody. The watch asks the host's clock of each vCPU
//! thread's CPU time, which wakes no vCPU. Only when none has had any for a whole period does it take
//! the vCPUs out of the guest, once, to look at them; not again before one has run.

use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use super::event_loop::watch_or_end;
use crate::control::ExitReason;
use crate::exit::ExitSignal;
use crate::vcpu::Vcpus;

/// The first period, and the longest: it doubles while the guest sleeps, but for its own timers.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(8);
/// A guest that takes less than a period divided by this sleeps: on an emulated processor its timers
/// alone take some percent.
const ASLEEP: u32 = 5;

pub(super) struct HaltWatch {
    vcpus: Arc<Vcpus>,
    exit: ExitSignal,
    timer: TimerFd,
    period: Duration,
    seen: Vec<Duration>,
    /// Alive, although idle, when last looked at.
    checked: bool,
    /// Looked at in the last period, which cost the vCPU threads a little time of our making.
    settling: bool,
}

/// More than a look costs a vCPU thread, and less than a guest that does anything takes.
const COST_OF_A_LOOK: Duration = Duration::from_millis(1);

impl HaltWatch {
    pub fn new(vcpus: Arc<Vcpus>, exit: ExitSignal) -> std::io::Result<Self> {
        let mut watch = Self {
            vcpus,
            exit,
            timer: TimerFd::new()?,
            period: FIRST,
            seen: Vec::new(),
            checked: false,
            settling: false,
        };
        watch.arm()?;
        Ok(watch)
    }

    fn arm(&mut self) -> std::io::Result<()> {
        Ok(self.timer.reset(self.period, None)?)
    }

    fn look(&mut self) {
        if !self.vcpus.is_running() {
            // Paused by its owner, who knows; a look would end with the vCPUs running.
            self.period = (self.period * 2).min(LONGEST);
            return;
        }
        let now = self.vcpus.cpu_times();
        let used = self.used_since(&now);
        self.seen = now;
        let settling = std::mem::take(&mut self.settling);
        let Some(used) = used.filter(|used| *used < self.period / ASLEEP) else {
            self.checked = false;
            self.period = FIRST;
            return;
        };
        self.period = (self.period * 2).min(LONGEST);
        let slack = if settling {
            COST_OF_A_LOOK
        } else {
            Duration::ZERO
        };
        if used > slack {
            // It wakes by itself.
            self.checked = false;
            return;
        }
        if self.checked {
            return;
        }
        self.vcpus.pause();
        if self.vcpus.all_dead() {
            self.exit.raise(ExitReason::Halt);
        }
        self.vcpus.resume();
        self.checked = true;
        self.settling = true;
    }

    /// The most that a vCPU ran since the last look; none at the first.
    fn used_since(&self, now: &[Duration]) -> Option<Duration> {
        let used = now
            .iter()
            .zip(&self.seen)
            .map(|(now, seen)| now.saturating_sub(*seen));
        used.max()
    }
}

impl MutEventSubscriber for HaltWatch {
    fn init(&mut self, ops: &mut EventOps) {
        let events = Events::new(&self.timer, EventSet::IN);
        watch_or_end(ops, events, &self.exit);
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        // It has expired, so that this waits for nothing.
        let _ = self.timer.wait();
        self.look();
        if let Err(error) = self.arm() {
            self.exit.raise(ExitReason::Unhandled {
                exit: format!("the halt timer cannot be armed: {error}"),
            });
        }
    }
}
