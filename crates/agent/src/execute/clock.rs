//! The two clocks of a stage: when it must be killed for its wall-clock limit or its CPU time.

use std::time::{Duration, Instant};

use super::cgroup::Cgroup;

/// The largest wall-clock limit: a year, which no sum of times overflows on.
pub const MAX_WALL_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// CPU time is read at most this often: a program that is killed has used at most this much more than its limit on each
/// CPU, and the agent needs no CPU time worth mentioning.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The wall-clock limit.
    WallTime,
    /// The limit of CPU time.
    CpuTime,
    /// The output limit, at which the stage was to be killed.
    Output,
}

/// The clocks of a running stage.
#[derive(Debug)]
pub struct Clock<'a> {
    deadline: Option<Instant>,
    cpu: Option<CpuBudget<'a>>,
}

impl<'a> Clock<'a> {
    /// `wall_time` counts from `started`.
    pub fn new(started: Instant, wall_time: Duration, cpu: Option<CpuBudget<'a>>) -> Self {
        Clock {
            deadline: started.checked_add(wall_time.min(MAX_WALL_TIME)),
            cpu,
        }
    }

    /// The time until [`Clock::reached`] must be called again.
    pub fn sleep(&self) -> Option<Duration> {
        let next = self.cpu.as_ref().map(|cpu| cpu.next);
        let first = self.deadline.into_iter().chain(next).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// The limit that the stage has reached.
    pub fn reached(&mut self) -> Option<Reached> {
        let now = Instant::now();
        if self.cpu.as_mut().is_some_and(|cpu| cpu.is_used_up(now)) {
            return Some(Reached::CpuTime);
        }
        let over = self.deadline.is_some_and(|deadline| now >= deadline);
        over.then_some(Reached::WallTime)
    }
}

/// The CPU time that the processes of a cgroup may still use.
#[derive(Debug)]
pub struct CpuBudget<'a> {
    cgroup: &'a Cgroup,
    /// The cgroup's CPU time at the limit, in microseconds.
    end_us: u64,
    cpus: u64,
    /// When the budget can be used up at the earliest: with every CPU busy until then.
    next: Instant,
}

impl<'a> CpuBudget<'a> {
    /// `limit` beyond the `before_us` microseconds that the cgroup has used already.
    pub fn new(cgroup: &'a Cgroup, before_us: u64, limit: Duration) -> Self {
        // SAFETY: sysconf(3) with a constant.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let mut budget = CpuBudget {
            cgroup,
            end_us: before_us.saturating_add(limit_us),
            cpus: u64::try_from(cpus).unwrap_or(1).max(1),
            next: Instant::now(),
        };
        budget.next += budget.earliest_end(before_us);
        budget
    }

    fn is_used_up(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let used_us = self.cgroup.cpu_time_us().unwrap_or(0);
        self.next = now + self.earliest_end(used_us);
        used_us >= self.end_us
    }

    fn earliest_end(&self, used_us: u64) -> Duration {
        let left_us = self.end_us.saturating_sub(used_us) / self.cpus;
        Duration::from_micros(left_us).clamp(SHORTEST_SLEEP, MAX_WALL_TIME)
    }
}
