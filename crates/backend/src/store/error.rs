//! Errors of the store.

/// An operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite returned an error.
    #[error("the job store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file could not be created.
    #[error("creating the job store: {0}")]
    Create(std::io::Error),
    /// A migration of the schema failed.
    #[error("migrating the job store: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// A row holds JSON that this version cannot parse, or a value could not be written as JSON.
    #[error("the job store holds an execution that this clouded cannot read: {0}")]
    Content(#[from] serde_json::Error),
    /// A newer clouded has migrated the file.
    #[error(
        "the job store (jobs.db in the state folder) has schema {found}, this clouded knows up to {known}: \
         start the newer clouded again, or move jobs.db away to begin with an empty store"
    )]
    Newer {
        /// The file's `PRAGMA user_version`.
        found: i64,
        /// The highest version that this program knows.
        known: i64,
    },
    /// Writes failed and wait for another attempt.
    #[error("{} writes to the job store failed and are tried again: {}", .0.writes, .0.error)]
    Unwritten(Trouble),
    /// The writer thread could not be started, or has ended.
    #[error("the job store's writer is gone")]
    Closed,
}

/// Writes that failed and wait for another attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The last error.
    pub error: String,
    /// The number of writes.
    pub writes: usize,
    /// Bytes of output of the results among them, all in memory.
    pub bytes: usize,
}
