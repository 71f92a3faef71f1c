//! API keys and their usage: `/v1/keys` and `/v1/usage`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A right that a key has.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Start executions, and cancel its own ones.
    Run,
    /// Read results of its own executions, the languages, the templates and the metrics.
    Read,
    /// Everything, on executions of all keys; manage keys and templates.
    Admin,
}

impl Scope {
    /// The scope's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Run => "run",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Scope::Run, Scope::Read, Scope::Admin]
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| format!("`{text}` is no scope; use `run`, `read` or `admin`"))
    }
}

/// `POST /v1/keys`: creates a key.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// A name for people, at most 100 bytes.
    #[serde(default)]
    pub name: String,
    /// At least one; `run` and `read` if absent.
    #[serde(default = "default_scopes")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub scopes: Vec<Scope>,
    /// Seconds until the key expires, at least 1; never if absent.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3_162_240_000_u64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}

/// The scopes of a key that names none.
pub fn default_scopes() -> Vec<Scope> {
    vec![Scope::Run, Scope::Read]
}

/// An item of the response to `GET /v1/keys`. It does not contain the key's secret, which the server does not know.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyInfo {
    /// The key's id, its second part.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// Its rights.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub scopes: Vec<Scope>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970; it never expires if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// Milliseconds since 1970, if it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<i64>,
}

/// The response to `POST /v1/keys`. No other response has the key.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewKey {
    /// `cloude_ID_SECRET`.
    pub key: String,
    /// The rest.
    #[serde(flatten)]
    pub info: KeyInfo,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("key", &"(secret)")
            .field("info", &self.info)
            .finish()
    }
}

/// An item of the response to `GET /v1/usage`: the sums over the finished executions of a key, also those whose results
/// were removed since.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// The key's id, or `local` for clients without a key.
    pub key: String,
    /// The number of executions, however they ended.
    pub executions: u64,
    /// Milliseconds for which they had a VM.
    pub vm_ms: u64,
    /// Milliseconds of CPU time of compilers and programs, measured in the guests.
    pub cpu_ms: u64,
    /// Guest memory multiplied by [`Usage::vm_ms`], in MiB times seconds.
    pub memory_mib_s: u64,
}
