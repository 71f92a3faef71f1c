//! The original API: `POST /run` and `GET /status/{id}`.

use serde::{Deserialize, Serialize};

use super::Status;

/// `POST /run`: starts an execution and returns its id at once.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// The program.
    pub code: String,
}

/// The answer to `POST /run`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunResponse {
    /// The execution's id, for `GET /status/{id}`.
    pub id: String,
}

/// The answer to `GET /status/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusResponse {
    /// The execution's id.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// The language's name, also if the request had an alias.
    pub language: String,
    /// The exit code once it ended: the program's, 128 + n for signal n, 124 for the wall-clock limit.
    pub exit_code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error; the compiler's if that failed.
    pub stderr: String,
}
