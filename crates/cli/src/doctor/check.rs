//! The result of one check of `doctor`.

use serde::Serialize;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// Something works less well, or not all of it does.
    Warning,
    /// Programs do not run until this is fixed.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub state: State,
    /// What is there.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Check {
            name: name.to_owned(),
            state: State::Ok,
            found: found.into(),
            fix: None,
        }
    }

    pub fn warning(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Check {
            name: name.to_owned(),
            state: State::Warning,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    pub fn broken(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Check {
            name: name.to_owned(),
            state: State::Broken,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }
}
