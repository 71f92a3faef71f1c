//! The callback of a submission: `PUT` with the submission as JSON.

use cloude_protocol::api::Execution;

use super::form::Form;
use super::submission::Submission;
use super::submissions::stored;
use super::view::{Output, Progress, View};
use crate::callbacks::Notice;
use crate::config::Config;
use crate::jobs::merged_output;

/// The notice of the end of a submission. None if `dialect` cannot be read.
pub fn callback(dialect: &str, execution: &Execution, order: Option<&[u8]>) -> Option<Notice> {
    let submission: Box<Submission> = stored(dialect)?;
    let output = Output::of(&submission, execution, |stage| {
        merged_output(execution, order, stage)
    });
    let view = View {
        token: &execution.id,
        submission: &submission,
        created_ms: execution.created_ms,
        language: None,
        progress: Progress::Ended(execution, output),
    };
    // The default fields have no limit, so that any configuration serves.
    let bounds = super::bounds::Bounds::of(&Config::default());
    let fields = view.fields(&Form::default_of(true), &bounds).ok()?;
    Some(Notice {
        method: reqwest::Method::PUT,
        body: serde_json::to_vec(&fields).ok()?,
    })
}
