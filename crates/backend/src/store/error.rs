//! Errors of the store.

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite returned an error.
    #[error("SQLite failed on jobs.db in the state folder: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file could not be created.
    #[error("cannot create jobs.db in the state folder: {0}")]
    Create(std::io::Error),
    /// A migration of the schema failed.
    #[error("cannot migrate jobs.db in the state folder: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// A row holds JSON that this version cannot parse, or a value could not be written as JSON.
    #[error("the job store holds an execution that this version of clouded cannot read: {0}")]
    Content(#[from] serde_json::Error),
    /// A newer clouded has migrated the file.
    #[error(
        "jobs.db in the state folder has schema {found}, and this version of clouded supports up to {known}: \
         start the newer clouded again, or move jobs.db away to begin with an empty store"
    )]
    Newer {
        /// The file's `PRAGMA user_version`.
        found: i64,
        /// The highest version that this program knows.
        known: i64,
    },
    /// Another execution of the tenant has the idempotency key.
    #[error("another execution has the idempotency key")]
    KeyUsed,
    /// Writes failed and are retried.
    #[error("{} writes to the job store failed and are retried: {}", .0.writes, .0.error)]
    Unwritten(FailedWrites),
    /// The writer thread could not be started, or has ended.
    #[error("the writer thread of the job store has ended; restart clouded")]
    Closed,
}

/// Writes that failed and are retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedWrites {
    /// The last error.
    pub error: String,
    /// The number of writes.
    pub writes: usize,
    /// Bytes of output of the results among them, all in memory.
    pub bytes: usize,
}
