//! The client of a request, and what it may do.

use std::sync::Arc;

use cloude_protocol::keys::Scope;

use super::key::{Key, Rejected};
use crate::tenant::Tenant;

/// The client of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: Tenant,
    key: Option<Arc<Key>>,
}

impl Caller {
    /// A client without a key on a server that does not require one. It may do everything.
    pub fn local() -> Self {
        Caller {
            tenant: Tenant::local(),
            key: None,
        }
    }

    /// A client with a key.
    pub fn of(key: Arc<Key>) -> Self {
        Caller {
            tenant: Tenant::of_key(key.id()),
            key: Some(key),
        }
    }

    /// The owner of executions that this client starts.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// True if the client may see and cancel the executions of `owner`.
    pub fn may_see(&self, owner: &Tenant) -> bool {
        self.tenant == *owner || self.sees_all()
    }

    /// Waits until the client's key is revoked or expires.
    pub async fn key_ended(&self) -> Rejected {
        match &self.key {
            Some(key) => key.ended().await,
            None => std::future::pending().await,
        }
    }

    /// True if the client may see the executions of all owners.
    pub fn sees_all(&self) -> bool {
        self.key.as_ref().is_none_or(|key| key.has(Scope::Admin))
    }
}
