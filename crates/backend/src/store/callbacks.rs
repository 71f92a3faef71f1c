//! The table of callbacks.

use rusqlite::{Connection, params};

use super::time::now_ms;

/// A callback that is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The execution's id.
    pub job: String,
    pub url: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, in milliseconds since 1970.
    pub due_ms: i64,
}

/// Adds the callback of an execution that has not ended.
pub fn add(connection: &Connection, job: &str, url: &str) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO callbacks (job, url) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![job, url])?;
    Ok(())
}

/// The execution has ended: its callback is due, if it has one.
pub fn due(connection: &Connection, job: &str) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE callbacks SET due_ms = ?2 WHERE job = ?1 AND due_ms IS NULL AND attempts = 0";
    connection
        .prepare_cached(sql)?
        .execute(params![job, now_ms()])?;
    Ok(())
}

/// Stores the outcome of an attempt: none if it was delivered, else when the next attempt is due, if there is one.
pub fn attempted(
    connection: &Connection,
    job: &str,
    attempts: u32,
    failed: Option<Option<i64>>,
) -> Result<usize, rusqlite::Error> {
    let sql = "UPDATE callbacks SET attempts = ?2, due_ms = ?3, delivered_ms = ?4 WHERE job = ?1";
    let delivered_ms = failed.is_none().then(now_ms);
    let values = params![job, attempts, failed.flatten(), delivered_ms];
    connection.prepare_cached(sql)?.execute(values)
}

/// The callbacks whose execution has ended and that are not delivered, in the order in which they are due.
pub fn pending(connection: &Connection, limit: usize) -> Result<Vec<Delivery>, rusqlite::Error> {
    let sql = "SELECT job, url, attempts, due_ms FROM callbacks WHERE due_ms IS NOT NULL ORDER BY due_ms LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![limit], |row| {
        Ok(Delivery {
            job: row.get(0)?,
            url: row.get(1)?,
            attempts: row.get(2)?,
            due_ms: row.get(3)?,
        })
    })?;
    rows.collect()
}
