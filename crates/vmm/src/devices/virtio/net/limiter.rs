//! Limits on packets, bytes and new flows, as token buckets.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use super::bucket::Bucket;
use super::flows::{Flow, Flows};
use super::spec::NetLimits;

/// A clock in nanoseconds.
#[derive(Clone, Debug)]
pub(super) enum Clock {
    /// CLOCK_MONOTONIC, read through the vDSO.
    Monotonic,
    /// A clock that a test sets.
    #[cfg(test)]
    Fake(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    fn now(&self) -> u64 {
        match self {
            Self::Monotonic => {
                let mut time = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                // SAFETY: clock_gettime writes one `timespec`, which outlives the call. It cannot fail for this clock.
                unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
                time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
            }
            #[cfg(test)]
            Self::Fake(time) => time.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

/// The buckets of one direction.
#[derive(Debug)]
pub(super) struct Direction {
    packets: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Direction {
    fn new(limits: &NetLimits, now: u64) -> Self {
        Self {
            packets: Bucket::new(limits.packets_per_s, now),
            bytes: Bucket::new(limits.bytes_per_s, now),
        }
    }

    /// Nanoseconds until the next packet may pass. Reads the clock only if a bucket is empty.
    fn wait(&mut self, clock: &Clock) -> u64 {
        let wait = |bucket: &mut Option<Bucket>| match bucket {
            Some(bucket) if bucket.is_empty() => bucket.wait(clock.now()),
            _ => 0,
        };
        wait(&mut self.packets).max(wait(&mut self.bytes))
    }

    /// Counts a frame.
    pub fn take(&mut self, packets: u64, bytes: usize) {
        if let Some(bucket) = &mut self.packets {
            bucket.take(packets);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes as u64);
        }
    }
}

/// The buckets of a device, with the timer that ends a wait.
#[derive(Debug)]
pub(super) struct Limiter {
    clock: Clock,
    timer: TimerFd,
    /// The time that the timer is set to.
    due: Option<u64>,
    pub tx: Direction,
    pub rx: Direction,
    connections: Option<Bucket>,
    flows: Flows,
}

impl Limiter {
    /// Creates a timerfd.
    pub fn new(limits: &NetLimits, clock: Clock) -> vmm_sys_util::errno::Result<Self> {
        let now = clock.now();
        Ok(Self {
            timer: TimerFd::new()?,
            due: None,
            tx: Direction::new(limits, now),
            rx: Direction::new(limits, now),
            connections: Bucket::new(limits.connections_per_s, now),
            flows: Flows::new(),
            clock,
        })
    }

    /// Readable when a direction that [`Limiter::may_send`] or [`Limiter::may_receive`] held back should be tried again.
    pub fn timer_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// The timer has fired: both directions are tried, and one that still waits sets it again.
    pub fn fired(&mut self) {
        self.due = None;
    }

    /// Whether the guest may send a packet now. If not, the timer is set.
    pub fn may_send(&mut self) -> bool {
        let wait = self.tx.wait(&self.clock);
        wait == 0 || self.set_timer(wait)
    }

    /// Whether the guest may receive a packet now. If not, the timer is set.
    pub fn may_receive(&mut self) -> bool {
        let wait = self.rx.wait(&self.clock);
        wait == 0 || self.set_timer(wait)
    }

    /// Sets the timer, unless it is set to an earlier time. Returns false.
    fn set_timer(&mut self, wait: u64) -> bool {
        let due = self.clock.now().saturating_add(wait);
        if self.due.is_none_or(|set| due < set) {
            // timerfd_settime(2) does not fail with a timerfd and a valid time.
            let _ = self.timer.reset(Duration::from_nanos(wait), None);
            self.due = Some(due);
        }
        false
    }

    /// Whether a packet of the flow may be sent: always if the flow is known, else if a new one is allowed now.
    pub fn may_open(&mut self, flow: Flow) -> bool {
        let Some(bucket) = &mut self.connections else {
            return true;
        };
        if self.flows.touch(flow) {
            return true;
        }
        if bucket.is_empty() && bucket.wait(self.clock.now()) > 0 {
            return false;
        }
        bucket.take(1);
        self.flows.add(flow);
        true
    }
}
