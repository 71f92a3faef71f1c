//! One key: its rights, its expiry and its revocation.

use std::sync::OnceLock;
use std::time::Duration;

use cloude_protocol::keys::{KeyInfo, Scope};
use tokio_util::sync::CancellationToken;

use super::secret::Hash;
use crate::store::{StoredKey, now_ms};

/// Maximum delay between two looks at the clock, which an administrator may set.
const CLOCK: Duration = Duration::from_secs(60);

/// A presented key is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Malformed, of another server, or with another secret.
    Unknown,
    Expired,
    Revoked,
}

/// A key.
#[derive(Debug)]
pub struct Key {
    info: KeyInfo,
    pub(super) hash: Hash,
    revoked_ms: OnceLock<i64>,
    revoked: CancellationToken,
}

impl From<StoredKey> for Key {
    fn from(StoredKey { info, hash }: StoredKey) -> Self {
        let revoked_ms = OnceLock::new();
        if let Some(ms) = info.revoked_ms {
            let _ = revoked_ms.set(ms);
        }
        Key {
            info,
            hash: Hash(hash),
            revoked_ms,
            revoked: CancellationToken::new(),
        }
    }
}

impl Key {
    pub fn id(&self) -> &str {
        &self.info.id
    }

    /// The key as `GET /v1/keys` shows it.
    pub fn info(&self) -> KeyInfo {
        KeyInfo {
            revoked_ms: self.revoked_ms.get().copied(),
            ..self.info.clone()
        }
    }

    /// True if it has the scope. `admin` includes the others.
    pub fn has(&self, scope: Scope) -> bool {
        let scopes = &self.info.scopes;
        scopes.contains(&scope) || scopes.contains(&Scope::Admin)
    }

    pub(super) fn check(&self) -> Result<(), Rejected> {
        if self.revoked_ms.get().is_some() {
            return Err(Rejected::Revoked);
        }
        match self.info.expires_ms {
            Some(ms) if ms <= now_ms() => Err(Rejected::Expired),
            _ => Ok(()),
        }
    }

    /// Returns the time of the first call.
    pub(super) fn revoke(&self, now_ms: i64) -> i64 {
        let revoked_ms = *self.revoked_ms.get_or_init(|| now_ms);
        self.revoked.cancel();
        revoked_ms
    }

    /// Waits until the key is revoked or expires.
    pub async fn ended(&self) -> Rejected {
        let expired = async {
            let Some(ms) = self.info.expires_ms else {
                return std::future::pending().await;
            };
            while let Ok(left @ 1..) = u64::try_from(ms - now_ms()) {
                tokio::time::sleep(Duration::from_millis(left).min(CLOCK)).await;
            }
        };
        tokio::select! {
            biased;
            // A key may have been revoked between its check and this call: the token stays cancelled.
            () = self.revoked.cancelled() => Rejected::Revoked,
            () = expired => Rejected::Expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(expires_ms: Option<i64>) -> Key {
        let info = KeyInfo {
            id: "a".into(),
            name: String::new(),
            scopes: vec![Scope::Run],
            created_ms: 0,
            expires_ms,
            revoked_ms: None,
        };
        Key::from(StoredKey {
            info,
            hash: [0; 32],
        })
    }

    #[tokio::test]
    async fn a_key_ends_when_it_expires() {
        let key = key(Some(now_ms() + 20));

        assert_eq!(key.ended().await, Rejected::Expired);

        assert_eq!(key.check(), Err(Rejected::Expired));
    }

    #[tokio::test]
    async fn a_key_ends_when_it_is_revoked() {
        let key = key(None);
        let ended = key.ended();

        assert_eq!(key.revoke(5), 5);

        assert_eq!(ended.await, Rejected::Revoked);
        assert_eq!(key.revoke(6), 5, "the first revocation counts");
    }

    #[test]
    fn admin_includes_the_other_scopes() {
        let mut key = key(None);
        assert!(key.has(Scope::Run) && !key.has(Scope::Read) && !key.has(Scope::Admin));

        key.info.scopes = vec![Scope::Admin];

        assert!(key.has(Scope::Run) && key.has(Scope::Read) && key.has(Scope::Admin));
    }
}
