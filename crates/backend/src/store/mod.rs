//! The job store: SQLite with a write-ahead log. One thread writes, in batches: whatever waits is
//! one transaction. What was answered as stored survives the death of this process.

mod schema;
mod writer;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cloude_protocol::api::{Execution, ExecutionRequest, Status};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use writer::{Command, Writer};

/// Why something was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the job store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What is in it is not what we wrote.
    #[error("the job store holds an execution that cannot be read: {0}")]
    Content(#[from] serde_json::Error),
    /// Written by a newer clouded.
    #[error(
        "the job store has version {found}, this clouded knows up to {known}; start the newer clouded, or move jobs.db away"
    )]
    Version {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The writer could not be started, or ended.
    #[error("the job store's writer is gone")]
    Closed,
}

/// An execution as it was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub id: String,
    /// The language's own name.
    pub language: String,
    /// The request.
    pub request: ExecutionRequest,
    /// Run it after a crash? Not where a client waits, who is gone with the connection.
    pub durable: bool,
    /// How often it was started.
    pub attempts: u32,
}

/// What is known of an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The language's own name.
    pub language: String,
    /// Where it stands.
    pub status: Status,
    /// Once it ended.
    pub result: Option<Execution>,
}

/// A worker that was running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its process id.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot: tells it from a later process.
    pub start_time: u64,
}

/// How long finished executions are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Milliseconds.
    pub age_ms: i64,
    /// At most so many.
    pub jobs: u64,
}

/// The open store.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Arc<Writer>,
    reader: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens `jobs.db` in the state folder, or makes it.
    pub fn open(state_dir: &Path, retention: Retention) -> Result<Self, StoreError> {
        let path = state_dir.join("jobs.db");
        let connection = schema::open(&path)?;
        let reader = schema::open(&path)?;
        Ok(Store {
            writer: Arc::new(Writer::start(connection, retention)?),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// Stores an accepted execution; returns once it is safe.
    pub async fn accept(&self, accepted: &Accepted) -> Result<(), StoreError> {
        let request = serde_json::to_string(&accepted.request)?;
        let (done, stored) = oneshot::channel();
        let (id, language) = (accepted.id.clone(), accepted.language.clone());
        let durable = accepted.durable;
        self.writer.send(Command::Accept {
            id,
            language,
            request,
            durable,
            done,
        })?;
        match durable {
            true => stored.await.map_err(|_| StoreError::Closed)?,
            // Whoever waits is answered from memory, and need not wait for the disk too.
            false => Ok(()),
        }
    }

    /// Notes that an execution is in its VM, once more.
    pub fn started(&self, id: &str) {
        self.writer
            .send_or_log(Command::Started { id: id.to_owned() });
    }

    /// Stores the result.
    pub fn finished(&self, result: Arc<Execution>) {
        self.writer.send_or_log(Command::Finished { result });
    }

    /// Notes a worker, so that the next start can end it should this process be killed.
    pub fn worker_started(&self, worker: WorkerRecord, ip: Option<Ipv4Addr>) {
        self.writer
            .send_or_log(Command::WorkerStarted { worker, ip });
    }

    /// Forgets it.
    pub fn worker_ended(&self, pid: i32) {
        self.writer.send_or_log(Command::WorkerEnded { pid });
    }

    /// Returns once everything sent before is written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (done, flushed) = oneshot::channel();
        self.writer.send(Command::Flush { done })?;
        flushed.await.map_err(|_| StoreError::Closed)
    }

    /// What is known of an execution, all that was sent before included.
    pub async fn get(&self, id: &str) -> Result<Option<Record>, StoreError> {
        self.flush().await?;
        let id = id.to_owned();
        self.read(move |connection| get(connection, &id)).await
    }

    /// What was accepted and has no result, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Accepted>, StoreError> {
        self.read(unfinished).await
    }

    /// Workers that were running when this store was last used.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT pid, start_time FROM workers")?;
            let rows = statement.query_map([], |row| {
                Ok(WorkerRecord {
                    pid: row.get(0)?,
                    start_time: row.get::<_, i64>(1)? as u64,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The address that was given out last.
    pub async fn last_ip(&self) -> Result<Option<Ipv4Addr>, StoreError> {
        self.read(|connection| {
            let text: Option<String> = connection
                .query_row("SELECT value FROM meta WHERE key = 'last_ip'", [], |row| {
                    row.get(0)
                })
                .optional()?;
            Ok(text.and_then(|text| text.parse().ok()))
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || {
            query(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }
}

fn get(connection: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    let row = connection
        .prepare_cached("SELECT language, status, result FROM jobs WHERE id = ?1")?
        .query_row(params![id], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, Option<String>>(2)?,
            ))
        })
        .optional()?;
    let Some((language, status, result)) = row else {
        return Ok(None);
    };
    let result = result.map(|json| serde_json::from_str(&json)).transpose()?;
    Ok(Some(Record {
        language,
        status: schema::parse_status(&status),
        result,
    }))
}

fn unfinished(connection: &Connection) -> Result<Vec<Accepted>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT id, language, request, durable, attempts FROM jobs
         WHERE finished_ms IS NULL ORDER BY created_ms, rowid",
    )?;
    let rows = statement.query_map([], |row| {
        let request: String = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, request, row.get(3)?, row.get(4)?))
    })?;
    let mut jobs = Vec::new();
    for row in rows {
        let (id, language, request, durable, attempts) = row?;
        let request = serde_json::from_str(&request)?;
        jobs.push(Accepted {
            id,
            language,
            request,
            durable,
            attempts,
        });
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests;
