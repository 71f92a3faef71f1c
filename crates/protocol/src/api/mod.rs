//! The backend's HTTP API.

mod attach;
mod batch;
mod event;
mod installation;
mod language;
mod limits;
mod list;
mod original;
mod problem;
mod ready;
mod request;
mod result;
mod template;

/// The body of every error response.
pub use crate::agent::ErrorBody;
pub use attach::{AttachMessage, SignalChoice};
pub use batch::{Batch, BatchInput, BatchRequest};
pub use event::ExecutionEvent;
pub use installation::{IMAGE_MAX_AGE_DAYS, Installation, InstalledKernel, IsolationWall};
pub use language::{Example, LanguageDetails, LanguageInfo};
pub use limits::{CompileLimits, Limits};
pub use list::{ExecutionList, ExecutionSummary};
pub use original::{RunRequest, RunResponse, StatusResponse};
pub use problem::{PROBLEM_JSON, Problem};
pub use ready::{Readiness, ReadyPart};
pub use request::{ExecutionRequest, OnOutputLimit, StartChoice};
pub use result::{Artifact, CompileReport, Execution, StartKind, Status, Timings};
pub use template::{TemplateInfo, TemplateRequest, TemplateState};
