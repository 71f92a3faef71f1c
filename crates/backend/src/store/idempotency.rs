//! Keys of requests that a client may send again, and the executions that they started.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::row::IdempotencyKey;
use crate::tenant::Tenant;

/// Stores the key of an execution. Fails with [`StoreError::KeyUsed`] if another one of the tenant has it.
pub fn add(
    connection: &Connection,
    tenant: &Tenant,
    key: &IdempotencyKey,
    job: &str,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO idempotency (tenant, key, hash, job) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let values = params![tenant.id(), key.key, key.hash, job];
    match connection.prepare_cached(sql)?.execute(values)? {
        0 => Err(StoreError::KeyUsed),
        _ => Ok(()),
    }
}

/// The hash of the request with this key, and the id of its execution.
pub fn find(
    connection: &Connection,
    tenant: &Tenant,
    key: &str,
) -> Result<Option<([u8; 32], String)>, StoreError> {
    let sql = "SELECT hash, job FROM idempotency WHERE tenant = ?1 AND key = ?2";
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![tenant.id(), key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
    Ok(found.optional()?)
}
