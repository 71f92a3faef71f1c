//! All keys of a server.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use cloude_protocol::keys::{KeyInfo, KeyRequest, NewKey};

use super::key::{Key, Rejected};
use super::secret;
use crate::store::{Store, StoreError, StoredKey, now_ms};

/// Maximum bytes of a key's name.
const MAX_NAME: usize = 100;
/// Maximum seconds until a key expires: a hundred years.
const MAX_EXPIRY_S: u64 = 100 * 366 * 86_400;

/// A key cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The name is too long or has control characters.
    #[error("`name` must have at most {MAX_NAME} bytes and no control characters")]
    Name,
    /// The list of scopes is empty.
    #[error("`scopes` is empty: name at least one of `run`, `read` and `admin`")]
    NoScope,
    /// The expiry is out of range.
    #[error("`expires_s` is {seconds}, it must be 1 to {MAX_EXPIRY_S}")]
    Expiry { seconds: u64 },
    /// getrandom(2) failed.
    #[error("the kernel gave no random numbers: {0}")]
    Random(#[source] std::io::Error),
    /// The key was not stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All keys of this server.
#[derive(Debug)]
pub struct Keys {
    store: Store,
    by_id: RwLock<HashMap<String, Arc<Key>>>,
}

impl Keys {
    /// Loads the keys.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let stored = store.keys().await?;
        let keys = stored.into_iter().map(|stored| Arc::new(Key::from(stored)));
        let by_id = keys.map(|key| (key.id().to_owned(), key)).collect();
        Ok(Keys {
            store: store.clone(),
            by_id: RwLock::new(by_id),
        })
    }

    /// True if a key is neither revoked nor expired.
    pub fn any_valid(&self) -> bool {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        by_id.values().any(|key| key.check().is_ok())
    }

    /// The key that a client presents.
    pub fn authenticate(&self, text: &str) -> Result<Arc<Key>, Rejected> {
        let (id, secret) = secret::parse(text).ok_or(Rejected::Unknown)?;
        let key = self.get(id).ok_or(Rejected::Unknown)?;
        if !key.hash.matches(&secret) {
            return Err(Rejected::Unknown);
        }
        key.check()?;
        Ok(key)
    }

    fn get(&self, id: &str) -> Option<Arc<Key>> {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        by_id.get(id).cloned()
    }

    /// Creates a key. It is stored when this returns.
    pub async fn create(&self, request: KeyRequest) -> Result<NewKey, KeyError> {
        let KeyRequest {
            name,
            mut scopes,
            expires_s,
        } = request;
        if name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(KeyError::Name);
        }
        if scopes.is_empty() {
            return Err(KeyError::NoScope);
        }
        scopes.sort_unstable();
        scopes.dedup();
        let created_ms = now_ms();
        let expires_ms = match expires_s {
            None => None,
            Some(seconds @ 1..=MAX_EXPIRY_S) => Some(created_ms + seconds as i64 * 1000),
            Some(seconds) => return Err(KeyError::Expiry { seconds }),
        };
        let generated = secret::generate().map_err(KeyError::Random)?;
        let info = KeyInfo {
            id: generated.id,
            name,
            scopes,
            created_ms,
            expires_ms,
            revoked_ms: None,
        };
        let stored = StoredKey {
            info: info.clone(),
            hash: generated.hash.0,
        };
        self.store.add_key(stored.clone()).await?;
        let key = Arc::new(Key::from(stored));
        self.by_id
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(info.id.clone(), key);
        tracing::info!(id = info.id, name = info.name, "an API key was created");
        Ok(NewKey {
            key: generated.text,
            info,
        })
    }

    /// All keys, the oldest first.
    pub fn list(&self) -> Vec<KeyInfo> {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = by_id.values().map(|key| key.info()).collect();
        keys.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        keys
    }

    /// Revokes a key, and ends its running requests. Returns false if the id is unknown. On an error the key is revoked
    /// until the next start.
    pub async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        let Some(key) = self.get(id) else {
            return Ok(false);
        };
        let revoked_ms = key.revoke(now_ms());
        self.store.revoke_key(id.to_owned(), revoked_ms).await?;
        tracing::info!(id, "an API key was revoked");
        Ok(true)
    }
}
