//! Ids of executions.

use crate::error::UsageError;

/// Ids become a part of the request's path: refuses one with other characters than ids have.
pub fn check_id(id: &str) -> Result<(), UsageError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.is_empty() && id.chars().all(valid) {
        return Ok(());
    }
    Err(UsageError::ExecutionId { id: id.to_owned() })
}
