//! The job store: one SQLite file with a write-ahead log. One thread writes; what was answered as stored
//! survives the death of this process.
//!
//! A write that fails is tried again until it succeeds ([`Store::trouble`] says that there is one), and until
//! then [`Store::get`] still knows its result.

mod prune;
mod schema;
mod write;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cloude_protocol::api::{Execution, ExecutionRequest, Status};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use write::Write;
use writer::{Command, Writer};

/// Why something was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the job store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file could not be created.
    #[error("creating the job store: {0}")]
    Create(std::io::Error),
    /// The tables could not be brought to the present schema.
    #[error("migrating the job store: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// The row holds JSON that this version does not read, or could not be turned into JSON.
    #[error("the job store holds an execution that this clouded cannot read: {0}")]
    Content(#[from] serde_json::Error),
    /// Written by a newer clouded.
    #[error(
        "the job store (jobs.db in the state folder) has schema {found}, this clouded knows up to {known}: \
         start the newer clouded again, or move jobs.db away to begin with an empty store"
    )]
    Newer {
        /// The file's `PRAGMA user_version`.
        found: i64,
        /// The highest that we know.
        known: i64,
    },
    /// Writes failed and wait for another attempt.
    #[error("{} writes to the job store failed and are tried again: {}", .0.writes, .0.error)]
    Unwritten(Trouble),
    /// The writer could not be started, or ended.
    #[error("the job store's writer is gone")]
    Closed,
}

/// Writes that failed and wait for another attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The last error.
    pub error: String,
    /// How many writes.
    pub writes: usize,
    /// Bytes of output in the results among them, all in memory.
    pub bytes: usize,
}

/// An execution that survives this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub id: String,
    /// The language's own name.
    pub language: String,
    /// The request.
    pub request: ExecutionRequest,
    /// How often it was started and not ended, planned restarts of the server aside.
    pub attempts: u32,
}

/// An execution without a result whose row cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id.
    pub id: String,
    /// The language's own name, as far as that can be read.
    pub language: String,
    /// The reason why it cannot be read.
    pub reason: String,
}

/// The stored state of an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The language's own name.
    pub language: String,
    /// Where it stands.
    pub status: Status,
    /// Once it ended.
    pub result: Option<Arc<Execution>>,
}

/// How long finished executions are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Milliseconds.
    pub age_ms: i64,
    /// At most so many.
    pub jobs: u64,
    /// At most so many bytes of the database in use; the oldest go first.
    pub bytes: u64,
}

/// The open store.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Arc<Writer>,
    reader: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens `jobs.db` in the state folder, or creates it.
    pub fn open(state_dir: &Path, retention: Retention) -> Result<Self, StoreError> {
        let path = state_dir.join("jobs.db");
        let connection = schema::open(&path)?;
        let reader = schema::open_again(&path)?;
        Ok(Store {
            writer: Arc::new(Writer::start(connection, retention)?),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// Stores a durable execution; returns once it is safe.
    pub async fn accept(&self, accepted: &Accepted) -> Result<(), StoreError> {
        self.write_now(Write::Accept {
            id: accepted.id.clone(),
            language: accepted.language.clone(),
            request: serde_json::to_string(&accepted.request)?,
        })
        .await
    }

    /// Counts an attempt at a durable execution; returns once that is written, or failed and is tried again.
    pub async fn started(&self, id: &str) -> Result<(), StoreError> {
        self.write_now(Write::Started { id: id.to_owned() }).await
    }

    /// Takes the last attempt back: the server stops, and the next start runs the execution again.
    pub fn interrupted(&self, id: &str) {
        self.send(Write::Interrupted { id: id.to_owned() });
    }

    /// Stores a result. [`Store::get`] knows it at once.
    pub fn finished(&self, result: Arc<Execution>) {
        self.send(Write::Finished { result });
    }

    /// Stores a result; returns once it is written, or failed and is tried again.
    pub async fn finished_now(&self, result: Arc<Execution>) -> Result<(), StoreError> {
        self.write_now(Write::Finished { result }).await
    }

    /// Returns once everything sent before is written; the error says what is not.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (done, flushed) = oneshot::channel();
        self.writer.send(Command::Flush { done })?;
        flushed.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes that failed and are tried again, if any.
    pub fn trouble(&self) -> Option<Trouble> {
        self.writer.shared.trouble()
    }

    async fn write_now(&self, write: Write) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        self.writer.send(Command::Write {
            write,
            done: Some(done),
        })?;
        written.await.map_err(|_| StoreError::Closed)?
    }

    fn send(&self, write: Write) {
        if let Err(error) = self.writer.send(Command::Write { write, done: None }) {
            tracing::error!(%error, "writing to the job store");
        }
    }

    /// The stored state of an execution.
    pub async fn get(&self, id: &str) -> Result<Option<Record>, StoreError> {
        if let Some(result) = self.writer.shared.result(id) {
            return Ok(Some(Record {
                language: result.language.clone(),
                status: result.status,
                result: Some(result),
            }));
        }
        let id = id.to_owned();
        self.read(move |connection| get(connection, &id)).await
    }

    /// What was accepted and has no result, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Result<Accepted, Unreadable>>, StoreError> {
        self.read(unfinished).await
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

/// The output of all its stages.
pub fn output_bytes(execution: &Execution) -> usize {
    let compile = execution.compile.as_ref();
    let compile = compile.map_or(0, |stage| stage.stdout.0.len() + stage.stderr.0.len());
    execution.stdout.0.len() + execution.stderr.0.len() + compile
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
        result: result.map(Arc::new),
    }))
}

fn unfinished(connection: &Connection) -> Result<Vec<Result<Accepted, Unreadable>>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT id, language, request, attempts FROM jobs
         WHERE finished_ms IS NULL ORDER BY created_ms, rowid",
    )?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        match row.get::<_, String>(0) {
            Ok(id) => jobs.push(read_accepted(row, id)),
            // Without its id nothing can be said of it, and nobody can ask for it.
            Err(error) => tracing::error!(%error, "the job store holds a row without an id"),
        }
    }
    Ok(jobs)
}

fn read_accepted(row: &Row<'_>, id: String) -> Result<Accepted, Unreadable> {
    let language: String = row.get(1).unwrap_or_else(|_| "unknown".into());
    let read = || -> Result<(ExecutionRequest, u32), StoreError> {
        let request: String = row.get(2)?;
        Ok((serde_json::from_str(&request)?, row.get(3)?))
    };
    match read() {
        Ok((request, attempts)) => Ok(Accepted {
            id,
            language,
            request,
            attempts,
        }),
        Err(error) => Err(Unreadable {
            id,
            language,
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
