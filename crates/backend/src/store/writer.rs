//! The thread that writes. Commands that wait at the same time become one transaction. If it fails, each is applied
//! in a separate transaction, so that one bad write does not fail the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cloude_protocol::api::Execution;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{FailedWrites, StoreError};
use super::prune;
use super::row::{Retention, output_bytes};
use super::write::{Write, is_permanent};

/// Maximum commands in one transaction.
const BATCH: usize = 256;
/// Interval of [`prune::prune`], which also runs at the start.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// First and maximum delay before a retry. The delay doubles each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Maximum length of a result as JSON: SQLITE_MAX_LENGTH of the bundled SQLite, minus the other columns of the row.
const VALUE_BYTES: u64 = 1_000_000_000 - (1 << 20);

type Done = oneshot::Sender<Result<(), StoreError>>;

#[derive(Debug)]
pub enum Command {
    /// `done` receives the result of the first attempt.
    Write { write: Write, done: Option<Done> },
    /// Retries failed writes. `done` receives an error if any fails again.
    Flush { done: Done },
}

/// State that the thread shares with the users of the store.
#[derive(Debug, Default)]
pub struct Shared {
    /// Results that are not in the database yet, by id.
    unwritten: Mutex<HashMap<String, Arc<Execution>>>,
    failures: Mutex<Option<FailedWrites>>,
}

impl Shared {
    fn results(&self) -> MutexGuard<'_, HashMap<String, Arc<Execution>>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_failures(&self) -> MutexGuard<'_, Option<FailedWrites>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn result(&self, id: &str) -> Option<Arc<Execution>> {
        self.results().get(id).cloned()
    }

    pub fn failed_writes(&self) -> Option<FailedWrites> {
        self.lock_failures().clone()
    }
}

/// Handle of the thread. Dropping it waits until all writes have succeeded or failed once more.
#[derive(Debug)]
pub struct Writer {
    pub shared: Arc<Shared>,
    sender: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection, retention: Retention) -> Result<Self, StoreError> {
        let (sender, commands) = mpsc::channel();
        let disk = Database::new(connection, retention);
        let shared = Arc::clone(&disk.shared);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || disk.serve(&commands))
            .map_err(|_| StoreError::Closed)?;
        Ok(Writer {
            shared,
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    pub fn send(&self, command: Command) -> Result<(), StoreError> {
        if let Command::Write {
            write: Write::Finished { result },
            ..
        } = &command
        {
            let known = Arc::clone(result);
            self.shared.results().insert(result.id.clone(), known);
        }
        let sender = self.sender.as_ref().ok_or(StoreError::Closed)?;
        sender.send(command).map_err(|_| StoreError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The database, and the writes that failed.
pub struct Database {
    pub connection: Connection,
    pub shared: Arc<Shared>,
    retention: Retention,
    value_bytes: usize,
    /// In the order of sending.
    failed: VecDeque<Write>,
    retry_at: Instant,
    backoff: Duration,
    prune_at: Instant,
}

impl Database {
    pub fn new(connection: Connection, retention: Retention) -> Self {
        let value_bytes = VALUE_BYTES.min(retention.bytes / 4);
        Database {
            connection,
            shared: Arc::default(),
            retention,
            value_bytes: usize::try_from(value_bytes).unwrap_or(usize::MAX),
            failed: VecDeque::new(),
            retry_at: Instant::now(),
            backoff: RETRY.0,
            prune_at: Instant::now(),
        }
    }

    fn serve(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            if self.prune_at <= Instant::now() {
                self.prune();
            }
            if !self.failed.is_empty() && self.retry_at <= Instant::now() {
                self.retry();
            }
            let due = match self.failed.is_empty() {
                true => self.prune_at,
                false => self.prune_at.min(self.retry_at),
            };
            match commands.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    let more = commands.try_iter().take(BATCH - 1);
                    self.write(std::iter::once(first).chain(more).collect());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.retry();
        for write in &self.failed {
            if let Write::Finished { result } = write {
                tracing::error!(
                    id = result.id,
                    "this result is lost: the job store could not write it"
                );
            }
        }
    }

    fn prune(&mut self) {
        if let Err(error) = prune::prune(&self.connection, self.retention) {
            tracing::error!(%error, "removing old results from the job store failed");
        }
        self.prune_at = Instant::now() + PRUNE_EVERY;
    }

    /// Applies commands and sends their results to the callers that wait.
    pub fn write(&mut self, batch: Vec<Command>) {
        let mut writes = Vec::new();
        let mut flushes = Vec::new();
        for command in batch {
            match command {
                Command::Write { write, done } => writes.push((write, done)),
                Command::Flush { done } => flushes.push(done),
            }
        }
        let together = match writes.len() {
            0 | 1 => false,
            _ => self.write_together(&writes).is_ok(),
        };
        let mut has_result = false;
        for (write, done) in writes {
            has_result |= matches!(write, Write::Finished { .. });
            let written = match together {
                true => Ok(()),
                false => write.apply_alone(&self.connection, self.value_bytes),
            };
            self.applied(write, written, done);
        }
        if has_result && let Err(error) = prune::limit_bytes(&self.connection, self.retention.bytes)
        {
            tracing::error!(%error, "removing the oldest results from the full job store failed");
        }
        self.flushed(flushes);
    }

    fn write_together(&mut self, writes: &[(Write, Option<Done>)]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for (write, _) in writes {
            write.apply(&transaction, self.value_bytes)?;
        }
        Ok(transaction.commit()?)
    }

    fn applied(&mut self, write: Write, written: Result<(), StoreError>, done: Option<Done>) {
        match &written {
            Ok(()) => self.forget(&write),
            Err(error) if is_permanent(error) => {
                tracing::error!(%error, ?write, "this write to the job store is dropped: it can never succeed");
                self.forget(&write);
            }
            Err(error) => {
                let retried = write.is_retried();
                self.failed_once(retried.then_some(write), &error.to_string());
            }
        }
        if let Some(done) = done {
            let _ = done.send(written);
        }
    }

    fn forget(&self, write: &Write) {
        if let Write::Finished { result } = write {
            self.shared.results().remove(&result.id);
        }
    }

    /// Queues a write for another attempt, or a probe where the write itself is not retried.
    fn failed_once(&mut self, write: Option<Write>, error: &str) {
        if self.failed.is_empty() {
            tracing::error!(error, "a write to the job store failed and will be retried");
            self.backoff = RETRY.0;
            self.retry_at = Instant::now() + self.backoff;
        }
        match write {
            Some(write) => self.failed.push_back(write),
            None if self.failed.is_empty() => self.failed.push_back(Write::Probe),
            None => {}
        }
        self.publish(Some(error));
    }

    /// Retries each failed write once.
    pub fn retry(&mut self) {
        if self.failed.is_empty() {
            return;
        }
        let mut last = None;
        for write in std::mem::take(&mut self.failed) {
            match write.apply_alone(&self.connection, self.value_bytes) {
                Ok(()) => self.forget(&write),
                Err(error) if is_permanent(&error) => {
                    tracing::error!(%error, ?write, "this write to the job store is dropped: it can never succeed");
                    self.forget(&write);
                }
                Err(error) => {
                    last = Some(error.to_string());
                    self.failed.push_back(write);
                }
            }
        }
        if self.failed.is_empty() {
            tracing::info!("all failed writes to the job store have succeeded now");
        }
        self.backoff = (self.backoff * 2).min(RETRY.1);
        self.retry_at = Instant::now() + self.backoff;
        self.publish(last.as_deref());
    }

    /// Updates [`Shared::failed_writes`]. Without a new error, the earlier one stays while any write is missing.
    fn publish(&self, error: Option<&str>) {
        let mut failures = self.shared.lock_failures();
        if self.failed.is_empty() {
            *failures = None;
            return;
        }
        let earlier = failures.take().map(|failures| failures.error);
        let bytes = |write: &Write| match write {
            Write::Finished { result } => output_bytes(result),
            _ => 0,
        };
        *failures = Some(FailedWrites {
            error: error.map(str::to_owned).or(earlier).unwrap_or_default(),
            writes: self.failed.len(),
            bytes: self.failed.iter().map(bytes).sum(),
        });
    }

    fn flushed(&mut self, flushes: Vec<Done>) {
        if flushes.is_empty() {
            return;
        }
        self.retry();
        for done in flushes {
            let flushed = match self.shared.failed_writes() {
                None => Ok(()),
                Some(failures) => Err(StoreError::Unwritten(failures)),
            };
            let _ = done.send(flushed);
        }
    }
}
