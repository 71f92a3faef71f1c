//! Finished output that responses hold in memory, bounded in bytes. Beyond the limit, the connection that has not taken
//! data for the longest time is closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cloude_protocol::api::Execution;
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::store::output_bytes;

/// All pins of a server.
#[derive(Debug)]
pub struct Pins {
    limit: usize,
    bounds: Bounds,
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    bytes: usize,
    entries: HashMap<u64, Entry>,
    /// Holders of each result, by its address: a result that several responses share counts once.
    shared: HashMap<usize, usize>,
}

#[derive(Debug)]
struct Entry {
    close: CancellationToken,
    read: Arc<AtomicU64>,
    /// Bytes that belong to this response alone.
    own: usize,
    result: Option<Arc<Execution>>,
    is_cut: bool,
}

impl Entry {
    fn key(&self) -> Option<(usize, usize)> {
        let result = self.result.as_ref()?;
        Some((Arc::as_ptr(result).addr(), output_bytes(result)))
    }
}

/// The output that one response holds. Dropping it releases the bytes.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    id: u64,
    read: Arc<AtomicU64>,
}

impl Pins {
    /// `limit`: bytes of all pins together. A single pin may exceed it.
    pub fn new(limit: usize, bounds: Bounds) -> Self {
        Pins {
            limit,
            bounds,
            since: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// A pin without bytes. `close` closes the connection of the response.
    pub fn pin(self: &Arc<Self>, close: CancellationToken) -> Pin {
        let read = Arc::new(AtomicU64::new(self.now()));
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let entry = Entry {
            close,
            read: Arc::clone(&read),
            own: 0,
            result: None,
            is_cut: false,
        };
        state.entries.insert(id, entry);
        Pin {
            pins: Arc::clone(self),
            id,
            read,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Pin {
    /// Counts the output of a result, and `own` bytes that belong to this response alone.
    pub fn hold(&self, result: Option<&Arc<Execution>>, own: usize) {
        let mut state = self.pins.lock();
        state.release(self.id);
        if let Some(entry) = state.entries.get_mut(&self.id) {
            entry.result = result.cloned();
            entry.own = own;
        }
        state.count(self.id);
        state.cut(self.pins.limit, self.id, &self.pins.bounds);
        self.pins.bounds.pinned(state.bytes);
    }

    /// The connection has taken data.
    pub fn taken(&self) {
        self.read.store(self.pins.now(), Ordering::Relaxed);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.pins.lock();
        state.release(self.id);
        // Dropped after the lock is released, because a large result takes a while.
        let entry = state.entries.remove(&self.id);
        self.pins.bounds.pinned(state.bytes);
        drop(state);
        drop(entry);
    }
}

impl State {
    fn count(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        self.bytes += entry.own;
        if let Some((address, bytes)) = entry.key() {
            let holders = self.shared.entry(address).or_default();
            *holders += 1;
            if *holders == 1 {
                self.bytes += bytes;
            }
        }
    }

    fn release(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        self.bytes -= entry.own;
        if let Some((address, bytes)) = entry.key()
            && let Some(holders) = self.shared.get_mut(&address)
        {
            *holders -= 1;
            if *holders == 0 {
                self.shared.remove(&address);
                self.bytes -= bytes;
            }
        }
    }

    /// Closes connections until the others are within the limit.
    fn cut(&mut self, limit: usize, newest: u64, bounds: &Bounds) {
        if self.bytes <= limit {
            return;
        }
        let mut others: Vec<_> = self
            .entries
            .iter()
            .filter(|(id, entry)| **id != newest && (entry.own > 0 || entry.result.is_some()))
            .map(|(id, entry)| (entry.read.load(Ordering::Relaxed), *id))
            .collect();
        others.sort_unstable();
        for (_, id) in others {
            if self.bytes <= limit {
                return;
            }
            // Its memory is free as soon as its connection's task runs.
            self.release(id);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.close.cancel();
                (entry.own, entry.result) = (0, None);
                if !std::mem::replace(&mut entry.is_cut, true) {
                    bounds.rejected("result_memory");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::about::About;
    use crate::jobs::outcome::ExecutionParts;
    use crate::jobs::transcript::Transcript;
    use cloude_engine::Failure;
    use cloude_protocol::api::{StartKind, Timings};

    fn printing(bytes: usize) -> Arc<Execution> {
        let about = About {
            id: "a".into(),
            tenant: crate::tenant::Tenant::local(),
            language: "python".into(),
            labels: Default::default(),
            created_ms: 0,
        };
        let parts = ExecutionParts {
            about: &about,
            image: None,
            is_compile_shared: false,
            artifacts: Vec::new(),
            artifacts_dropped: 0,
            result: Err(Failure::infrastructure("none")),
            transcript: &mut Transcript::default(),
            timings: Timings::default(),
            ip: None,
            network: None,
            start: StartKind::Cold,
            memory_mib: 0,
        };
        let mut execution = parts.execution();
        execution.stdout.0 = vec![b'x'; bytes];
        Arc::new(execution)
    }

    fn pins(limit: usize) -> Arc<Pins> {
        Arc::new(Pins::new(limit, Bounds::default()))
    }

    fn pin(pins: &Arc<Pins>, bytes: usize) -> (Pin, CancellationToken) {
        let close = CancellationToken::new();
        let pin = pins.pin(close.clone());
        pin.hold(None, bytes);
        (pin, close)
    }

    #[test]
    fn the_reader_without_progress_is_closed_first() {
        let pins = pins(250);
        let (idle, idle_closed) = pin(&pins, 100);
        let (reading, reading_closed) = pin(&pins, 100);
        idle.taken();
        let before = pins.now();
        while pins.now() == before {}
        reading.taken();

        let (_third, third_closed) = pin(&pins, 100);

        assert!(idle_closed.is_cancelled());
        assert!(!reading_closed.is_cancelled() && !third_closed.is_cancelled());
        assert_eq!(pins.lock().bytes, 200);
        drop((idle, reading));
        assert_eq!(pins.lock().bytes, 100);
    }

    #[test]
    fn a_result_that_two_responses_share_counts_once() {
        let pins = pins(150);
        let result = printing(100);
        let first = pins.pin(CancellationToken::new());
        first.hold(Some(&result), 0);
        let second = pins.pin(CancellationToken::new());
        second.hold(Some(&result), 0);
        assert_eq!(pins.lock().bytes, 100);
        drop(first);
        assert_eq!(pins.lock().bytes, 100);
        drop(second);
        assert_eq!(pins.lock().bytes, 0);
        assert_eq!(Arc::strong_count(&result), 1);
    }

    #[test]
    fn a_single_pin_may_exceed_the_limit() {
        let pins = pins(50);
        let (_large, closed) = pin(&pins, 100);
        assert!(!closed.is_cancelled());
        let (_small, _) = pin(&pins, 1);
        assert!(closed.is_cancelled());
    }
}
