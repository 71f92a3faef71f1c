//! The SQL statements of each write.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cloude_protocol::Data;
use cloude_protocol::api::{CompileReport, Execution, Status};
use rusqlite::{Connection, ErrorCode, params};

use super::error::StoreError;
use super::schema::status_text;

/// A change of the database.
#[derive(Debug)]
pub enum Write {
    /// A durable execution was accepted.
    Accept {
        id: String,
        language: String,
        request: String,
    },
    /// A durable execution is about to get its VM.
    Started { id: String },
    /// The shutdown stopped a durable execution: the attempt does not count.
    Interrupted { id: String },
    /// An execution has a result.
    Finished { result: Arc<Execution> },
    /// Writes a value that nothing reads, to test whether writes work again.
    Probe,
}

impl Write {
    /// True if a failed write is retried. For an accept, the client receives the error instead.
    pub fn is_retried(&self) -> bool {
        !matches!(self, Write::Accept { .. })
    }

    /// Applies the write in a separate transaction.
    pub fn apply_alone(
        &self,
        connection: &Connection,
        value_bytes: usize,
    ) -> Result<(), StoreError> {
        let transaction = connection.unchecked_transaction()?;
        self.apply(&transaction, value_bytes)?;
        Ok(transaction.commit()?)
    }

    /// Applies the write. `value_bytes`: maximum length of a result as JSON.
    pub fn apply(&self, connection: &Connection, value_bytes: usize) -> Result<(), StoreError> {
        let execute = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(values))
        };
        match self {
            Write::Accept {
                id,
                language,
                request,
            } => execute(
                "INSERT INTO jobs (id, language, request, status, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    id,
                    language,
                    request,
                    status_text(Status::Pending),
                    now_ms()
                ],
            )?,
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
            Write::Finished { result } => {
                let json = result_json(result, value_bytes)?;
                // The request is no longer needed, and often larger than the result.
                execute(
                    "INSERT INTO jobs (id, language, request, status, result, created_ms, finished_ms)
                     VALUES (?1, ?2, '', ?3, ?4, ?5, ?5)
                     ON CONFLICT (id) DO UPDATE SET status = excluded.status, result = excluded.result,
                         finished_ms = excluded.finished_ms, request = ''",
                    params![result.id, result.language, status_text(result.status), json, now_ms()],
                )?
            }
            Write::Probe => execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES ('probe', ?1)",
                params![now_ms().to_string()],
            )?,
        };
        Ok(())
    }
}

/// The result as JSON, without the output if it is longer than `value_bytes`.
fn result_json(result: &Execution, value_bytes: usize) -> Result<String, StoreError> {
    let json = serde_json::to_string(result)?;
    if json.len() <= value_bytes {
        return Ok(json);
    }
    tracing::error!(
        id = result.id,
        bytes = json.len(),
        limit = value_bytes,
        "a result is stored without its output: it is too large"
    );
    let error = format!(
        "the output was not stored: the result has {} bytes as JSON, and the job store accepts {value_bytes}",
        json.len()
    );
    let slim = Execution {
        stdout: Data::default(),
        stderr: Data::default(),
        compile: result.compile.as_ref().map(|compile| CompileReport {
            result: compile.result.clone(),
            stdout: Data::default(),
            stderr: Data::default(),
        }),
        error: Some(match &result.error {
            Some(earlier) => format!("{earlier}; {error}"),
            None => error,
        }),
        ..result.clone()
    };
    Ok(serde_json::to_string(&slim)?)
}

/// True if a retry of the write would fail whatever the state of the disk.
pub fn is_permanent(error: &StoreError) -> bool {
    match error {
        StoreError::Sqlite(error) => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch)
        ),
        StoreError::Content(_) => true,
        _ => false,
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as i64)
}
