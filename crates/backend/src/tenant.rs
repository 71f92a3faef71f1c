//! The owner of an execution.

use std::sync::Arc;

/// The id of the API key that made a request, or [`Tenant::local`] on a server without keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The tenant of all requests on a server without keys.
    pub fn local() -> Self {
        Tenant("local".into())
    }

    /// The tenant of an API key.
    pub fn of_key(id: &str) -> Self {
        Tenant(id.into())
    }

    /// The key's id, or `local`.
    pub fn id(&self) -> &str {
        &self.0
    }
}
