//! What the fuzz target needs of private parts (`fuzz/targets/registry.rs`).

use super::auth::{Challenge, token_of};

/// The realm of a Bearer challenge.
pub fn challenge(header: &str) -> Option<String> {
    match Challenge::parse(header)? {
        Challenge::Basic => None,
        Challenge::Bearer { realm, .. } => Some(realm),
    }
}

/// The token of an answer.
pub fn token(body: &[u8]) -> serde_json::Result<Option<String>> {
    token_of(body)
}
