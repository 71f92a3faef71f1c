//! The identity of an execution.

use std::collections::BTreeMap;

use crate::tenant::Tenant;

/// The values of an execution that are known from its request on.
#[derive(Clone, Debug)]
pub struct About {
    pub id: String,
    pub tenant: Tenant,
    /// The name of the language, not an alias.
    pub language: String,
    /// The labels of the request.
    pub labels: BTreeMap<String, String>,
    /// When the request arrived, in milliseconds since 1970.
    pub created_ms: u64,
}
