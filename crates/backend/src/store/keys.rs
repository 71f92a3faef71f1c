//! The table of API keys. Keys change rarely, so that they do not go through the writer thread.

use cloude_protocol::keys::{KeyInfo, Scope};
use rusqlite::{Connection, Row, params};

use super::{Store, StoreError};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub info: KeyInfo,
    /// The SHA-256 hash of the secret.
    pub hash: [u8; 32],
}

impl Store {
    /// All API keys.
    pub async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.on_second_connection(|connection| {
            let sql = "SELECT id, name, scopes, hash, created_ms, expires_ms, revoked_ms FROM keys";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Stores a key. Returns after the commit.
    pub async fn add_key(&self, key: StoredKey) -> Result<(), StoreError> {
        self.on_second_connection(move |connection| add(connection, &key))
            .await
    }

    /// Stores that a key is revoked. Returns after the commit.
    pub async fn revoke_key(&self, id: String, revoked_ms: i64) -> Result<(), StoreError> {
        self.on_second_connection(move |connection| {
            let sql = "UPDATE keys SET revoked_ms = ?2 WHERE id = ?1";
            connection.execute(sql, params![id, revoked_ms])?;
            Ok(())
        })
        .await
    }
}

fn add(connection: &Connection, StoredKey { info, hash }: &StoredKey) -> Result<(), StoreError> {
    let scopes: Vec<_> = info.scopes.iter().map(|scope| scope.name()).collect();
    connection.execute(
        "INSERT INTO keys (id, name, scopes, hash, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![info.id, info.name, scopes.join(","), hash, info.created_ms, info.expires_ms],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<StoredKey, rusqlite::Error> {
    // A scope that this version does not know grants nothing.
    let scopes = row.get::<_, String>(2)?;
    let scopes = scopes
        .split(',')
        .filter_map(|scope| scope.parse::<Scope>().ok());
    Ok(StoredKey {
        info: KeyInfo {
            id: row.get(0)?,
            name: row.get(1)?,
            scopes: scopes.collect(),
            created_ms: row.get(4)?,
            expires_ms: row.get(5)?,
            revoked_ms: row.get(6)?,
        },
        hash: row.get(3)?,
    })
}
