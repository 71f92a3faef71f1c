//! The job store: one SQLite file with a write-ahead log, and one thread that writes. A write that was
//! acknowledged survives the death of this process.
//!
//! A failed write is tried again until it succeeds ([`Store::trouble`] reports it); until then [`Store::get`]
//! returns its result from memory.

mod error;
mod prune;
mod row;
mod schema;
mod write;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cloude_protocol::api::{Execution, ExecutionRequest};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use write::Write;
use writer::{Command, Writer};

pub use error::{StoreError, Trouble};
pub use row::{Accepted, Record, Retention, Unreadable, output_bytes};

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
