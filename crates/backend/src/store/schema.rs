//! The tables.

use std::path::Path;
use std::time::Duration;

use cloude_protocol::api::Status;
use rusqlite::Connection;

use super::StoreError;

/// `PRAGMA user_version` of the tables below.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY,
        language TEXT NOT NULL,
        request TEXT NOT NULL,
        status TEXT NOT NULL,
        durable INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        result TEXT,
        created_ms INTEGER NOT NULL,
        finished_ms INTEGER
    );
    CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished_ms);
    CREATE TABLE IF NOT EXISTS workers (pid INTEGER PRIMARY KEY, start_time INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
";

/// Opens the file, and makes the tables where they are missing.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL keeps every commit through the death of the process; a power cut may lose the last ones.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::Version {
            found,
            known: VERSION,
        });
    }
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

/// As it is stored, and as clients see it.
pub fn status_text(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Running => "running",
        Status::Done => "done",
        Status::Error => "error",
    }
}

/// The reverse of [`status_text`].
pub fn parse_status(text: &str) -> Status {
    match text {
        "pending" => Status::Pending,
        "running" => Status::Running,
        "done" => Status::Done,
        _ => Status::Error,
    }
}
