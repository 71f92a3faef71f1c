//! The result of one check of `doctor`.

use serde::Serialize;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// A part of the product does not work, or works less well.
    Warning,
    /// No program runs until this is fixed.
    Broken,
}

/// One line of `doctor`, and its fix.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub state: State,
    /// The state that was found.
    pub found: String,
    /// The command or change that mends it.
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
