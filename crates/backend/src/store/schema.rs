//! Opens the database file, sets its mode and pragmas, and migrates the schema.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use cloude_protocol::api::Status;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::error::StoreError;

/// `PRAGMA user_version` counts the applied migrations. A released migration never changes; new ones are appended.
const MIGRATIONS: [M<'static>; 11] = [
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
    // Executions that are not durable get their row at the end: their requests may hold secrets, and no later process
    // needs them.
    M::up(
        "DELETE FROM jobs WHERE durable = 0 AND finished_ms IS NULL;
        ALTER TABLE jobs DROP COLUMN durable;",
    ),
    // The engine's run directory records workers and the last address.
    M::up(
        "DROP TABLE workers;
        DELETE FROM meta WHERE key = 'last_ip';",
    ),
    // Large output is stored as bytes, not as JSON. `output_bytes` are those in `outputs`.
    M::up(
        "CREATE TABLE outputs (
            job TEXT NOT NULL,
            stream INTEGER NOT NULL,
            part INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (job, stream, part)
        );
        ALTER TABLE jobs ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;
        CREATE TRIGGER jobs_outputs AFTER DELETE ON jobs WHEN OLD.output_bytes > 0
        BEGIN DELETE FROM outputs WHERE job = OLD.id; END;",
    ),
    // API keys: of the secret, the SHA-256 hash alone. `scopes` is a list with commas.
    M::up(
        "CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            scopes TEXT NOT NULL,
            hash BLOB NOT NULL,
            created_ms INTEGER NOT NULL,
            expires_ms INTEGER,
            revoked_ms INTEGER
        );",
    ),
    // The owner: the id of an API key, or `local`.
    M::up("ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT 'local';"),
    // Sums over finished executions, in microseconds, and MiB times microseconds.
    M::up(
        "CREATE TABLE usage (
            tenant TEXT PRIMARY KEY,
            executions INTEGER NOT NULL,
            vm_us INTEGER NOT NULL,
            cpu_us INTEGER NOT NULL,
            memory_mib_us INTEGER NOT NULL
        );",
    ),
    // Lists of executions. `labels` is a JSON object. Keys of requests that are sent again, with the SHA-256 hash of the
    // request.
    M::up(
        "ALTER TABLE jobs ADD COLUMN labels TEXT;
        CREATE INDEX jobs_created ON jobs (created_ms, id);
        CREATE INDEX jobs_tenant ON jobs (tenant, created_ms, id);
        CREATE TABLE idempotency (
            tenant TEXT NOT NULL,
            key TEXT NOT NULL,
            hash BLOB NOT NULL,
            job TEXT NOT NULL,
            PRIMARY KEY (tenant, key)
        );
        CREATE INDEX idempotency_job ON idempotency (job);
        CREATE TRIGGER jobs_idempotency AFTER DELETE ON jobs
        BEGIN DELETE FROM idempotency WHERE job = OLD.id; END;",
    ),
    // Callbacks. `due_ms`: when the next attempt is due; none before the end of the execution, and after the last attempt.
    M::up(
        "CREATE TABLE callbacks (
            job TEXT PRIMARY KEY,
            url TEXT NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            due_ms INTEGER,
            delivered_ms INTEGER
        );
        CREATE INDEX callbacks_due ON callbacks (due_ms) WHERE due_ms IS NOT NULL;
        CREATE TRIGGER jobs_callbacks AFTER DELETE ON jobs
        BEGIN DELETE FROM callbacks WHERE job = OLD.id; END;",
    ),
    // The batch of an execution, and its place there.
    M::up(
        "ALTER TABLE jobs ADD COLUMN batch TEXT;
        ALTER TABLE jobs ADD COLUMN batch_index INTEGER;
        CREATE INDEX jobs_batch ON jobs (batch, batch_index) WHERE batch IS NOT NULL;",
    ),
    // The request of another server's client, as JSON of its dialect.
    M::up(
        "ALTER TABLE jobs ADD COLUMN dialect TEXT;
        CREATE INDEX jobs_dialect ON jobs (tenant, created_ms, id) WHERE dialect IS NOT NULL;",
    ),
];

/// Value of `PRAGMA auto_vacuum`: `PRAGMA incremental_vacuum` returns free pages to the file system.
const INCREMENTAL: i64 = 2;
/// Maximum wait for the write lock, while another process such as an operator's sqlite3 holds it. The writer
/// retries after that.
const BUSY: Duration = Duration::from_secs(2);
/// Maximum bytes of the write-ahead log after a checkpoint.
const LOG_BYTES: i64 = 64 << 20;

/// Opens the file for writing, or creates it with mode 0600, and migrates it.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite creates jobs.db-wal and jobs.db-shm with the mode of the database.
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
    // Takes effect on an empty file. Other files need the VACUUM below.
    connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // With NORMAL, every commit survives a crash of the process. A power cut may lose the last ones.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Migrations::from_slice(&MIGRATIONS).to_latest(&mut connection)?;
    let vacuum: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if vacuum != INCREMENTAL
        && let Err(error) = connection.execute_batch("VACUUM")
    {
        tracing::warn!(%error, "VACUUM of the job store failed: jobs.db will not shrink");
    }
    Ok(connection)
}

/// Another connection to the file that [`open`] opened. Its commits survive a power cut: `synchronous` is FULL unless it
/// is set.
pub fn open_again(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// The text of a status in the column `status`.
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
