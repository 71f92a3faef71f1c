//! Requests of other servers' clients, as JSON of their dialect.

use rusqlite::{Connection, OptionalExtension, params};

use crate::tenant::Tenant;

/// A page of the executions with a dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Ids, newest first.
    pub ids: Vec<String>,
    /// The number of executions on all pages.
    pub total: u64,
}

/// The owner of an execution with a dialect, and the request in it.
pub fn find(
    connection: &Connection,
    id: &str,
) -> Result<Option<(Tenant, String)>, rusqlite::Error> {
    let sql = "SELECT tenant, dialect FROM jobs WHERE id = ?1 AND dialect IS NOT NULL";
    let row = |row: &rusqlite::Row<'_>| {
        let tenant: String = row.get(0)?;
        Ok((Tenant::of_key(&tenant), row.get(1)?))
    };
    connection
        .prepare_cached(sql)?
        .query_row([id], row)
        .optional()
}

/// A page of one owner's executions, or of all.
pub fn page(
    connection: &Connection,
    owner: Option<&Tenant>,
    limit: u64,
    offset: u64,
) -> Result<Page, rusqlite::Error> {
    let owner = owner.map(Tenant::id);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let sql = "SELECT count(*) FROM jobs WHERE dialect IS NOT NULL AND (?1 IS NULL OR tenant = ?1)";
    let total: i64 = connection
        .prepare_cached(sql)?
        .query_row([owner], |row| row.get(0))?;
    let sql = "SELECT id FROM jobs WHERE dialect IS NOT NULL AND (?1 IS NULL OR tenant = ?1)
               ORDER BY created_ms DESC, id DESC LIMIT ?2 OFFSET ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![owner, number(limit), number(offset)];
    let ids = statement.query_map(values, |row| row.get(0))?;
    Ok(Page {
        ids: ids.collect::<Result<_, _>>()?,
        total: total.unsigned_abs(),
    })
}
