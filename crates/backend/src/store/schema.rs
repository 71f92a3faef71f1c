//! The database file: opened, private to its user, and brought to the present schema.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use cloude_protocol::api::Status;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::error::StoreError;

/// `PRAGMA user_version` is the number of migrations that were applied. One that was released is never
/// changed; a new one goes to the end.
const MIGRATIONS: [M<'static>; 3] = [
    M::up(
        "CREATE TABLE jobs (
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
        CREATE INDEX jobs_finished ON jobs (finished_ms);
        CREATE TABLE workers (pid INTEGER PRIMARY KEY, start_time INTEGER NOT NULL);
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);",
    ),
    // An execution that a client waits for has a row only once it ended: its request may hold secrets, and is
    // of no use to a later process.
    M::up(
        "DELETE FROM jobs WHERE durable = 0 AND finished_ms IS NULL;
        ALTER TABLE jobs DROP COLUMN durable;",
    ),
    // Workers and the last address are recorded in the engine's run directory.
    M::up(
        "DROP TABLE workers;
        DELETE FROM meta WHERE key = 'last_ip';",
    ),
];

/// `PRAGMA auto_vacuum`: free pages go back to the file system when `PRAGMA incremental_vacuum` says so.
const INCREMENTAL: i64 = 2;
/// How long a statement waits while another process, such as an operator's sqlite3, holds the write lock. The
/// writer tries again later.
const BUSY: Duration = Duration::from_secs(2);
/// The most bytes that the write-ahead log keeps on the disk after a checkpoint.
const LOG_BYTES: i64 = 64 << 20;

/// Opens the file for writing, creates it (mode 0600) where it is missing, and migrates it.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite gives its log and its index the mode of the database.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::Create)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    let known = MIGRATIONS.len() as i64;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    // Takes effect on an empty file only; others need the VACUUM below.
    connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL keeps every commit through the death of the process; a power cut may lose the last ones.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Migrations::from_slice(&MIGRATIONS).to_latest(&mut connection)?;
    let vacuum: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if vacuum != INCREMENTAL
        && let Err(error) = connection.execute_batch("VACUUM")
    {
        tracing::warn!(%error, "the job store's file cannot shrink: VACUUM failed");
    }
    Ok(connection)
}

/// Another connection to the file that [`open`] opened.
pub fn open_again(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// A status as its column holds it.
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
