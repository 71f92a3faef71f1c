//! The SQL statements of each write.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloude_protocol::api::Status;
use rusqlite::{Connection, ErrorCode, params};

use super::error::StoreError;
use super::output::Stored;
use super::row::{Accepted, Ended, IdempotencyKey};
use super::schema::status_text;
use super::time::now_ms;
use crate::tenant::Tenant;

/// A change of the database.
#[derive(Debug)]
pub enum Write {
    /// A durable execution was accepted.
    Accept(Box<NewRow>),
    /// All executions of a batch were accepted.
    AcceptAll(Vec<NewRow>),
    /// A durable execution is about to get its VM.
    Started { id: String },
    /// The shutdown stopped a durable execution: the attempt does not count.
    Interrupted { id: String },
    /// An execution has a result.
    Finished(Arc<Ended>),
    /// A client deletes a finished execution.
    Delete { id: String },
    /// An attempt at a callback was made.
    Attempted {
        job: String,
        attempts: u32,
        failed: Option<Option<i64>>,
    },
    /// Writes a value that nothing reads, to test whether writes work again.
    Probe,
}

/// The row of a durable execution without a result.
#[derive(Debug)]
pub struct NewRow {
    id: String,
    tenant: Tenant,
    language: String,
    /// The request as JSON.
    request: String,
    created_ms: u64,
    /// The labels as JSON, if there are any.
    labels: Option<String>,
    key: Option<IdempotencyKey>,
    callback_url: Option<String>,
    batch: Option<(String, u32)>,
    dialect: Option<String>,
}

impl NewRow {
    fn of(accepted: &Accepted) -> Result<Self, serde_json::Error> {
        Ok(NewRow {
            id: accepted.id.clone(),
            tenant: accepted.tenant.clone(),
            language: accepted.language.clone(),
            request: serde_json::to_string(&accepted.request)?,
            created_ms: accepted.created_ms,
            labels: labels_json(&accepted.request.labels)?,
            key: accepted.key.clone(),
            callback_url: accepted.request.callback_url.clone(),
            batch: accepted.batch.clone(),
            dialect: accepted.dialect.clone(),
        })
    }

    fn insert(&self, connection: &Connection) -> Result<(), StoreError> {
        if let Some(key) = &self.key {
            super::idempotency::add(connection, &self.tenant, key, &self.id)?;
        }
        if let Some(url) = &self.callback_url {
            super::callbacks::add(connection, &self.id, url)?;
        }
        let (batch, index) = self.batch.clone().unzip();
        let sql = "INSERT INTO jobs (id, language, request, status, created_ms, tenant, labels, batch, batch_index,
                       dialect)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        connection.prepare_cached(sql)?.execute(params![
            self.id,
            self.language,
            self.request,
            status_text(Status::Pending),
            i64::try_from(self.created_ms).unwrap_or(i64::MAX),
            self.tenant.id(),
            self.labels,
            batch,
            index,
            self.dialect
        ])?;
        Ok(())
    }
}

impl Write {
    /// The write of a durable execution.
    pub fn accept(accepted: &Accepted) -> Result<Self, serde_json::Error> {
        Ok(Write::Accept(Box::new(NewRow::of(accepted)?)))
    }

    /// The write of the executions of a batch.
    pub fn accept_all(accepted: &[Accepted]) -> Result<Self, serde_json::Error> {
        let rows = accepted.iter().map(NewRow::of);
        Ok(Write::AcceptAll(rows.collect::<Result<_, _>>()?))
    }

    /// True if a failed write is retried. Otherwise the client receives the error.
    pub fn is_retried(&self) -> bool {
        !matches!(
            self,
            Write::Accept(_) | Write::AcceptAll(_) | Write::Delete { .. }
        )
    }

    /// Bytes of output.
    pub fn bytes(&self) -> usize {
        match self {
            Write::Finished(ended) => ended.bytes(),
            _ => 0,
        }
    }

    /// Applies the write in a separate transaction.
    pub fn apply_alone(
        &self,
        connection: &Connection,
        output_limit: usize,
    ) -> Result<(), StoreError> {
        let transaction = connection.unchecked_transaction()?;
        self.apply(&transaction, output_limit)?;
        Ok(transaction.commit()?)
    }

    /// Applies the write. `output_limit`: maximum bytes of output of a result.
    pub fn apply(&self, connection: &Connection, output_limit: usize) -> Result<(), StoreError> {
        let execute = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(values))
        };
        match self {
            Write::Accept(row) => {
                row.insert(connection)?;
                1
            }
            Write::AcceptAll(rows) => {
                rows.iter().try_for_each(|row| row.insert(connection))?;
                rows.len()
            }
            // A retry must not overwrite a later result.
            Write::Started { id } => execute(
                "UPDATE jobs SET status = ?2, attempts = attempts + 1 WHERE id = ?1 AND finished_ms IS NULL",
                params![id, status_text(Status::Running)],
            )?,
            Write::Interrupted { id } => execute(
                "UPDATE jobs SET status = ?2, attempts = max(attempts - 1, 0)
                 WHERE id = ?1 AND finished_ms IS NULL",
                params![id, status_text(Status::Pending)],
            )?,
            Write::Finished(ended) => {
                let Ended { result, tenant, .. } = &**ended;
                super::usage::add(connection, tenant, result)?;
                let stored = Stored::of(ended, output_limit)?;
                stored.write(connection, &result.id)?;
                let is_durable = ended.order.is_some();
                if is_durable {
                    super::callbacks::due(connection, &result.id)?;
                }
                // The request is no longer needed, and often larger than the result.
                execute(
                    "INSERT INTO jobs (id, language, request, status, result, output_bytes, created_ms, finished_ms,
                         tenant, labels)
                     VALUES (?1, ?2, '', ?3, ?4, ?5, ?8, ?6, ?7, ?9)
                     ON CONFLICT (id) DO UPDATE SET status = excluded.status, result = excluded.result,
                         output_bytes = excluded.output_bytes, finished_ms = excluded.finished_ms, request = ''",
                    params![
                        result.id,
                        result.language,
                        status_text(result.status),
                        stored.json,
                        stored.bytes(),
                        now_ms(),
                        tenant.id(),
                        i64::try_from(result.created_ms).unwrap_or(i64::MAX),
                        labels_json(&result.labels)?
                    ],
                )?
            }
            Write::Delete { id } => execute(
                "DELETE FROM jobs WHERE id = ?1 AND finished_ms IS NOT NULL",
                params![id],
            )?,
            Write::Attempted {
                job,
                attempts,
                failed,
            } => super::callbacks::attempted(connection, job, *attempts, *failed)?,
            Write::Probe => execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES ('probe', ?1)",
                params![now_ms().to_string()],
            )?,
        };
        Ok(())
    }
}

fn labels_json(labels: &BTreeMap<String, String>) -> Result<Option<String>, serde_json::Error> {
    let has_labels = !labels.is_empty();
    has_labels
        .then(|| serde_json::to_string(labels))
        .transpose()
}

/// True if a retry of the write would fail whatever the state of the disk.
pub fn is_permanent(error: &StoreError) -> bool {
    match error {
        StoreError::Sqlite(error) => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch)
        ),
        StoreError::Content(_) | StoreError::KeyUsed => true,
        _ => false,
    }
}
