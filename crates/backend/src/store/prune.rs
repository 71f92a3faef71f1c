//! Removes finished executions by age, number and bytes, and keeps the files small.

use rusqlite::{Connection, params};

use super::row::Retention;
use super::time::now_ms;

/// Maximum pages (4 KiB) that one pass returns to the file system. More would delay the writer.
const VACUUM_PAGES: u32 = 4096;

/// Removes finished executions beyond the limits, returns free pages to the file system, and truncates the write-ahead log.
pub fn prune(connection: &Connection, retention: Retention) -> Result<(), rusqlite::Error> {
    let oldest = now_ms().saturating_sub(retention.age_ms);
    connection.execute("DELETE FROM jobs WHERE finished_ms < ?1", params![oldest])?;
    let keep = i64::try_from(retention.jobs).unwrap_or(i64::MAX);
    connection.execute(
        "DELETE FROM jobs WHERE rowid IN (
            SELECT rowid FROM jobs WHERE finished_ms IS NOT NULL
            ORDER BY finished_ms DESC, rowid DESC LIMIT -1 OFFSET ?1)",
        params![keep],
    )?;
    limit_bytes(connection, retention.bytes)?;
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    // Each step frees one page.
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    drop(steps);
    drop(vacuum);
    // `journal_size_limit` truncates the log at the next write after a checkpoint, which may be far off.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Removes the oldest finished executions until the database has at most `limit` bytes in use.
pub fn limit_bytes(connection: &Connection, limit: u64) -> Result<(), rusqlite::Error> {
    if used_bytes(connection)? <= limit {
        return Ok(());
    }
    // More than needed, so that not every further result removes others.
    let target = limit / 10 * 9;
    loop {
        let excess = used_bytes(connection)?.saturating_sub(target);
        if excess == 0 {
            return Ok(());
        }
        // octet_length does not read the value.
        let removed = connection.execute(
            "DELETE FROM jobs WHERE rowid IN (
                SELECT job FROM (
                    SELECT rowid AS job,
                        sum(bytes) OVER (ORDER BY finished_ms, rowid) - bytes AS before
                    FROM (
                        SELECT rowid, finished_ms, octet_length(result) + output_bytes AS bytes
                        FROM jobs WHERE finished_ms IS NOT NULL))
                WHERE before < ?1)",
            params![i64::try_from(excess).unwrap_or(i64::MAX)],
        )?;
        if removed == 0 {
            return Ok(());
        }
        tracing::warn!(
            removed,
            limit,
            "the job store is full: its oldest results were removed (store.max_bytes)"
        );
    }
}

/// Bytes of the database pages in use.
pub fn used_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages.saturating_mul(pragma("page_size")?).max(0) as u64)
}
