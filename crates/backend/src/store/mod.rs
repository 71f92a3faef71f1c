//! The job store: one SQLite file with a write-ahead log, and one thread that writes. An acknowledged write survives
//! a crash of clouded.
//!
//! A failed write is retried until it succeeds ([`Store::failed_writes`]). Until then, [`Store::get`] returns the
//! result from memory.

mod callbacks;
mod dialect;
mod error;
mod idempotency;
mod keys;
mod list;
mod output;
mod prune;
mod row;
mod schema;
mod time;
mod usage;
mod write;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cloude_protocol::api::ExecutionSummary;
use cloude_protocol::keys::Usage;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use crate::tenant::Tenant;
use write::Write;
use writer::{Command, Writer};

pub use callbacks::Delivery;
pub use dialect::Page;
pub use error::{FailedWrites, StoreError};
pub use keys::StoredKey;
pub use list::Filter;
pub use output::file_stream;
pub use row::{
    Accepted, Ended, IdempotencyKey, Record, Retention, Unreadable, output_bytes, output_of,
    summary_of, without_output,
};
pub use time::now_ms;

/// The open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Arc<Writer>,
    /// For reads, and for keys.
    second: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens `jobs.db` in the state folder, or creates it.
    pub fn open(state_dir: &Path, retention: Retention) -> Result<Self, StoreError> {
        let path = state_dir.join("jobs.db");
        let connection = schema::open(&path)?;
        let second = schema::open_again(&path)?;
        Ok(Store {
            writer: Arc::new(Writer::start(connection, retention)?),
            second: Arc::new(Mutex::new(second)),
        })
    }

    /// Stores a durable execution. Returns after the commit.
    pub async fn accept(&self, accepted: &Accepted) -> Result<(), StoreError> {
        self.write_now(Write::accept(accepted)?).await
    }

    /// Stores the executions of a batch, all or none. Returns after the commit.
    pub async fn accept_all(&self, accepted: &[Accepted]) -> Result<(), StoreError> {
        self.write_now(Write::accept_all(accepted)?).await
    }

    /// The executions of a batch in the order of their inputs, with their owner.
    pub async fn batch(&self, id: &str) -> Result<Vec<(Tenant, ExecutionSummary)>, StoreError> {
        let id = id.to_owned();
        self.on_second_connection(move |connection| list::batch(connection, &id))
            .await
    }

    /// Counts an attempt at a durable execution. Returns after the commit, or with the error of a write that is retried.
    pub async fn started(&self, id: &str) -> Result<(), StoreError> {
        self.write_now(Write::Started { id: id.to_owned() }).await
    }

    /// Does not count the last attempt, which the shutdown interrupted.
    pub fn interrupted(&self, id: &str) {
        self.send(Write::Interrupted { id: id.to_owned() });
    }

    /// Stores a result in the background. [`Store::get`] returns it from now on.
    pub fn finished(&self, ended: Arc<Ended>) {
        self.send(Write::Finished(ended));
    }

    /// Stores a result. Returns after the commit, or with the error of a write that is retried.
    pub async fn finished_now(&self, ended: Arc<Ended>) -> Result<(), StoreError> {
        self.write_now(Write::Finished(ended)).await
    }

    /// Waits for all earlier writes. The error counts those that failed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (done, flushed) = oneshot::channel();
        self.writer.send(Command::Flush { done })?;
        flushed.await.map_err(|_| StoreError::Closed)?
    }

    /// Bytes of output of the results that wait to be written.
    pub fn unwritten_bytes(&self) -> usize {
        self.writer.shared.unwritten_bytes()
    }

    /// Writes that failed and are retried; `None` if there are none.
    pub fn failed_writes(&self) -> Option<FailedWrites> {
        self.writer.shared.failed_writes()
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
        if let Some(ended) = self.writer.shared.result(id) {
            return Ok(Some(Record {
                tenant: ended.tenant.clone(),
                summary: summary_of(&ended.result),
                result: Some(Arc::clone(&ended.result)),
            }));
        }
        let id = id.to_owned();
        self.on_second_connection(move |connection| get(connection, &id))
            .await
    }

    /// The content of an artifact of a result that is not written yet.
    pub fn unwritten_file(&self, id: &str, index: usize) -> Option<Bytes> {
        let ended = self.writer.shared.result(id)?;
        ended.files.get(index).cloned()
    }

    /// Summaries of the results that are not written yet, of one owner or of all.
    pub fn unwritten(&self, owner: Option<&Tenant>) -> Vec<ExecutionSummary> {
        let all = self.writer.shared.all();
        let of_owner = all
            .iter()
            .filter(|ended| owner.is_none_or(|owner| *owner == ended.tenant));
        of_owner.map(|ended| summary_of(&ended.result)).collect()
    }

    /// The order of events of a durable execution with a result.
    pub async fn order(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(ended) = self.writer.shared.result(id) {
            return Ok(ended.order.clone());
        }
        let id = id.to_owned();
        let order = self.on_second_connection(move |connection| {
            Ok(output::whole(connection, &id, output::ORDER)?)
        });
        Ok(Some(order.await?).filter(|order| !order.is_empty()))
    }

    /// The part of a stored stream ([`file_stream`]) that has the byte at `at`, and the position of its first byte.
    pub async fn part(
        &self,
        id: &str,
        stream: i64,
        at: u64,
    ) -> Result<Option<(u64, Bytes)>, StoreError> {
        let id = id.to_owned();
        let part = self
            .on_second_connection(move |connection| Ok(output::part(connection, &id, stream, at)?));
        Ok(part.await?.map(|(start, data)| (start, data.into())))
    }

    /// The owner of an execution with a dialect, and the request in it.
    pub async fn dialect(&self, id: &str) -> Result<Option<(Tenant, String)>, StoreError> {
        let id = id.to_owned();
        self.on_second_connection(move |connection| Ok(dialect::find(connection, &id)?))
            .await
    }

    /// A page of the executions with a dialect, newest first: of one owner, or of all.
    pub async fn dialects(
        &self,
        owner: Option<Tenant>,
        limit: u64,
        offset: u64,
    ) -> Result<Page, StoreError> {
        self.on_second_connection(move |connection| {
            Ok(dialect::page(connection, owner.as_ref(), limit, offset)?)
        })
        .await
    }

    /// Removes a finished execution with everything that is stored for it. Returns after the commit.
    pub async fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.write_now(Write::Delete { id: id.to_owned() }).await
    }

    /// A page of executions, newest first.
    pub async fn list(&self, filter: Filter) -> Result<Vec<ExecutionSummary>, StoreError> {
        self.on_second_connection(move |connection| list::list(connection, filter))
            .await
    }

    /// The hash of the request that the tenant sent with this key, and the id of its execution.
    pub async fn by_key(
        &self,
        tenant: &Tenant,
        key: &str,
    ) -> Result<Option<([u8; 32], String)>, StoreError> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.on_second_connection(move |connection| idempotency::find(connection, &tenant, &key))
            .await
    }

    /// The callbacks whose execution has ended and that are not delivered, in the order in which they are due.
    pub async fn deliveries(&self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.on_second_connection(move |connection| Ok(callbacks::pending(connection, limit)?))
            .await
    }

    /// Stores the outcome of a callback's attempt: none if it was delivered, else the time of the next attempt, if there is
    /// one. Returns after the commit.
    pub async fn delivered(
        &self,
        id: &str,
        attempts: u32,
        failed: Option<Option<i64>>,
    ) -> Result<(), StoreError> {
        self.write_now(Write::Attempted {
            job: id.to_owned(),
            attempts,
            failed,
        })
        .await
    }

    /// Executions without a result, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Result<Accepted, Unreadable>>, StoreError> {
        self.on_second_connection(unfinished).await
    }

    /// The usage of one owner, or of all in the order of their ids.
    pub async fn usage(&self, owner: Option<Tenant>) -> Result<Vec<Usage>, StoreError> {
        self.on_second_connection(move |connection| Ok(usage::list(connection, owner.as_ref())?))
            .await
    }

    async fn on_second_connection<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let second = Arc::clone(&self.second);
        tokio::task::spawn_blocking(move || {
            query(&second.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }
}

fn get(connection: &Connection, id: &str) -> Result<Option<Record>, StoreError> {
    // One snapshot, because the result may be removed meanwhile.
    let snapshot = connection.unchecked_transaction()?;
    let sql = format!(
        "SELECT {}, result, output_bytes, tenant FROM jobs WHERE id = ?1",
        list::COLUMNS
    );
    let row = snapshot
        .prepare_cached(&sql)?
        .query_row(params![id], |row| {
            Ok((
                list::read(row)?,
                row.get::<_, Option<String>>(8)?,
                row.get::<_, i64>(9)?,
                row.get::<_, String>(10)?,
            ))
        })
        .optional()?;
    let Some((summary, result, bytes, tenant)) = row else {
        return Ok(None);
    };
    let result = match result {
        Some(json) => {
            let result = serde_json::from_str(&json)?;
            Some(output::read(&snapshot, result, bytes)?)
        }
        None => None,
    };
    Ok(Some(Record {
        tenant: tenant_of(&tenant),
        summary,
        result,
    }))
}

fn tenant_of(id: &str) -> Tenant {
    // Also `local`: ids of keys are hexadecimal.
    Tenant::of_key(id)
}

fn unfinished(connection: &Connection) -> Result<Vec<Result<Accepted, Unreadable>>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT id, language, request, attempts, tenant, created_ms, batch, batch_index FROM jobs
         WHERE finished_ms IS NULL ORDER BY created_ms, rowid",
    )?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        match row.get::<_, String>(0) {
            Ok(id) => jobs.push(read_accepted(row, id)),
            // No client can ask for an execution without an id.
            Err(error) => tracing::error!(%error, "the job store holds a row without an id"),
        }
    }
    Ok(jobs)
}

fn read_accepted(row: &Row<'_>, id: String) -> Result<Accepted, Unreadable> {
    let language: String = row.get(1).unwrap_or_else(|_| "unknown".into());
    // Without a readable owner, administrators alone can read the result.
    let tenant = row.get::<_, String>(4).unwrap_or_default();
    let tenant = tenant_of(&tenant);
    let created_ms = row.get::<_, i64>(5).unwrap_or_default().unsigned_abs();
    let read = || -> Result<Accepted, StoreError> {
        let request: String = row.get(2)?;
        Ok(Accepted {
            id: id.clone(),
            tenant: tenant.clone(),
            language: language.clone(),
            request: serde_json::from_str(&request)?,
            attempts: row.get(3)?,
            created_ms,
            key: None,
            batch: Option::zip(row.get(6)?, row.get(7)?),
            dialect: None,
        })
    };
    read().map_err(|error| Unreadable {
        reason: error.to_string(),
        id: id.clone(),
        tenant: tenant.clone(),
        language: language.clone(),
        created_ms,
    })
}

#[cfg(test)]
mod tests;
