//! The thread that writes. Commands that wait at the same time become one transaction. If it fails, each is applied
//! in a separate transaction, so that one bad write does not fail the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{FailedWrites, StoreError};
use super::prune;
use super::row::{Ended, Retention};
use super::write::{Write, is_permanent};

/// Maximum commands in one transaction.
const BATCH: usize = 256;
/// Interval of [`prune::prune`], which also runs at the start.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// First and maximum delay before a retry. The delay doubles each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Bytes of output after which a transaction takes no further command, because all of it is in the write-ahead log at
/// once.
const BATCH_BYTES: usize = 16 << 20;

type Done = oneshot::Sender<Result<(), StoreError>>;

#[derive(Debug)]
pub enum Command {
    /// `done` receives the result of the first attempt.
    Write { write: Write, done: Option<Done> },
    /// Retries failed writes. `done` receives an error if any fails again.
    Flush { done: Done },
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Write { write, .. } => write.bytes(),
            Command::Flush { .. } => 0,
        }
    }
}

/// State that the thread shares with the users of the store.
#[derive(Debug, Default)]
pub struct Shared {
    /// Results that are not in the database yet, by id.
    unwritten: Mutex<HashMap<String, Arc<Ended>>>,
    failures: Mutex<Option<FailedWrites>>,
}

impl Shared {
    fn results(&self) -> MutexGuard<'_, HashMap<String, Arc<Ended>>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_failures(&self) -> MutexGuard<'_, Option<FailedWrites>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn result(&self, id: &str) -> Option<Arc<Ended>> {
        self.results().get(id).cloned()
    }

    /// All results that are not in the database yet.
    pub fn all(&self) -> Vec<Arc<Ended>> {
        self.results().values().cloned().collect()
    }

    pub fn unwritten_bytes(&self) -> usize {
        let results = self.results();
        results.values().map(|ended| ended.bytes()).sum()
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
            write: Write::Finished(ended),
            ..
        } = &command
        {
            let id = ended.result.id.clone();
            self.shared.results().insert(id, Arc::clone(ended));
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

/// The commands of one transaction.
fn batch(first: Command, more: &mpsc::Receiver<Command>) -> Vec<Command> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let Ok(next) = more.try_recv() else { break };
        bytes += next.bytes();
        batch.push(next);
    }
    batch
}

/// The database, and the writes that failed.
pub struct Database {
    pub connection: Connection,
    pub shared: Arc<Shared>,
    retention: Retention,
    /// Maximum bytes of output of a result.
    output_limit: usize,
    /// In the order of sending.
    failed: VecDeque<Write>,
    retry_at: Instant,
    backoff: Duration,
    prune_at: Instant,
}

impl Database {
    pub fn new(connection: Connection, retention: Retention) -> Self {
        Database {
            connection,
            shared: Arc::default(),
            retention,
            output_limit: usize::try_from(retention.bytes / 4).unwrap_or(usize::MAX),
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
                Ok(first) => self.write(batch(first, commands)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.retry();
        for write in &self.failed {
            if let Write::Finished(ended) = write {
                tracing::error!(
                    id = ended.result.id,
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
            has_result |= matches!(write, Write::Finished(_));
            let written = match together {
                true => Ok(()),
                false => write.apply_alone(&self.connection, self.output_limit),
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
            write.apply(&transaction, self.output_limit)?;
        }
        Ok(transaction.commit()?)
    }

    fn applied(&mut self, write: Write, written: Result<(), StoreError>, done: Option<Done>) {
        match &written {
            Ok(()) => self.forget(&write),
            // The caller finds the other execution.
            Err(StoreError::KeyUsed) => {}
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
        if let Write::Finished(ended) = write {
            self.shared.results().remove(&ended.result.id);
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
            match write.apply_alone(&self.connection, self.output_limit) {
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
        *failures = Some(FailedWrites {
            error: error.map(str::to_owned).or(earlier).unwrap_or_default(),
            writes: self.failed.len(),
            bytes: self.failed.iter().map(Write::bytes).sum(),
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
