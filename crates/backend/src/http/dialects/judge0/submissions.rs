//! One submission: `POST /submissions`, `GET` and `DELETE /submissions/{token}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloude_protocol::agent::StageName;
use cloude_protocol::api::{CompileReport, Execution};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::bounds::Bounds;
use super::fields::Errors;
use super::form::{Form, NotUtf8};
use super::languages;
use super::refusal::{Refusal, not_utf8, of_refused, of_submit};
use super::submission::Submission;
use super::view::{Output, Progress, View};
use crate::http::dialects::memory;
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::output;
use crate::http::peer::Peer;
use crate::jobs::{Found, Job, Service, Translated};
use crate::keys::Caller;

/// The last id of Judge0's archived languages.
const LAST_ARCHIVED: u32 = 42;

/// A submission in the store.
#[derive(Debug, Serialize, Deserialize)]
pub enum Stored {
    #[serde(rename = "judge0")]
    Judge0(Box<Submission>),
}

/// The query of all paths. Unknown names are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Options {
    wait: Option<String>,
    base64_encoded: Option<String>,
    fields: Option<String>,
    pub tokens: Option<String>,
    pub page: Option<i64>,
    pub per_page: Option<i64>,
}

impl Options {
    /// Texts are base64.
    pub fn is_base64(&self) -> bool {
        self.base64_encoded.as_deref() == Some("true")
    }

    /// The form of the answer.
    pub fn form(&self) -> Result<Form, Refusal> {
        Form::of(self.is_base64(), self.fields.as_deref())
            .map_err(|unknown| Refusal::Bad(format!("invalid fields: [{}]", unknown.join(", "))))
    }
}

/// `POST /submissions`
pub async fn create(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiQuery(options): ApiQuery<Options>,
    ApiJson(body): ApiJson<Map<String, Value>>,
) -> Result<Response, Refusal> {
    let form = options.form()?;
    let translated = translate(&service, body, options.is_base64())?;
    let dialect = translated.dialect.clone();
    let submitted = service.submit_each(caller.tenant(), vec![translated]);
    let job = match submitted.await.map_err(of_submit)?.pop() {
        Some(Ok(job)) => job,
        Some(Err(refused)) => return Err(of_refused(refused)),
        None => return Err(Refusal::NotFound),
    };
    let token = &job.about.id;
    if options.wait.as_deref() != Some("true") {
        return Ok((StatusCode::CREATED, Json(json!({"token": token}))).into_response());
    }
    let execution = service.result_of(&job).await?;
    let submission = stored(&dialect).ok_or(Refusal::NotFound)?;
    let shown = ended(&service, &submission, &execution, &form).await?;
    let mut response = match shown {
        Ok(fields) => output::value(&service, &peer, &fields),
        Err(NotUtf8) => {
            Json(json!({"error": not_utf8("this submission"), "token": token})).into_response()
        }
    };
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// `GET /submissions/{token}`
pub async fn show(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(token): ApiPath<String>,
    ApiQuery(options): ApiQuery<Options>,
) -> Result<Response, Refusal> {
    let form = options.form()?;
    let found = find(&service, &caller, &token, &form).await?;
    let fields = found.ok_or(Refusal::NotFound)??;
    Ok(output::value(&service, &peer, &fields))
}

/// `DELETE /submissions/{token}`: answers in base64, because the submission cannot be read again.
pub async fn destroy(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(token): ApiPath<String>,
    ApiQuery(options): ApiQuery<Options>,
) -> Result<Response, Refusal> {
    let form = Form {
        is_base64: true,
        ..options.form()?
    };
    let submission = owned(&service, &caller, &token).await?;
    let submission = submission.ok_or(Refusal::NotFound)?;
    let execution = match service.find(&caller, &token).await? {
        None => return Err(Refusal::NotFound),
        Some(Found::Ended(execution)) => execution,
        Some(Found::Unfinished(_) | Found::Stored(_)) => {
            let message = "submission cannot be deleted because it is in the queue or runs";
            return Err(Refusal::Bad(message.into()));
        }
    };
    let fields = ended(&service, &submission, &execution, &form).await??;
    service.delete(&execution).await?;
    Ok(output::value(&service, &peer, &fields))
}

/// Checks a submission and translates it.
pub fn translate(
    service: &Service,
    body: Map<String, Value>,
    is_base64: bool,
) -> Result<Translated, Refusal> {
    let bounds = Bounds::of(service.config());
    let submission = Submission::of(body, is_base64, &bounds)?;
    let id = submission.language_id;
    let Some(language) = service.judge0_language(id) else {
        let mut errors = Errors::default();
        let message = match id {
            1..=LAST_ARCHIVED => {
                format!("language with id {id} is archived and cannot be used anymore")
            }
            _ => format!("language with id {id} doesn't exist"),
        };
        errors.add("language_id", message);
        return Err(errors.into());
    };
    let default_mib = memory::default_mib(&language, service.config());
    let request = submission.request(&language, default_mib, &bounds)?;
    let stored = Stored::Judge0(Box::new(submission));
    let dialect = serde_json::to_string(&stored).map_err(crate::store::StoreError::from)?;
    Ok(Translated { request, dialect })
}

/// The submission of a stored text; none if it is of another version.
pub fn stored(dialect: &str) -> Option<Box<Submission>> {
    match serde_json::from_str(dialect) {
        Ok(Stored::Judge0(submission)) => Some(submission),
        Err(error) => {
            tracing::error!(%error, "a stored submission cannot be read");
            None
        }
    }
}

/// A submission that the caller may see.
async fn owned(
    service: &Service,
    caller: &Caller,
    token: &str,
) -> Result<Option<Box<Submission>>, Refusal> {
    let dialect = service.dialect(caller, token).await?;
    Ok(dialect.as_deref().and_then(stored))
}

/// The fields of a submission that the caller may see.
pub async fn find(
    service: &Service,
    caller: &Caller,
    token: &str,
    form: &Form,
) -> Result<Option<Result<Value, NotUtf8>>, Refusal> {
    let Some(submission) = owned(service, caller, token).await? else {
        return Ok(None);
    };
    let waiting = |status, created_ms| {
        let progress = Progress::Waiting(status);
        fields(service, (token, created_ms), &submission, progress, form)
    };
    Ok(match service.find(caller, token).await? {
        None => None,
        Some(Found::Ended(execution)) => Some(ended(service, &submission, &execution, form).await?),
        Some(Found::Unfinished(job)) => {
            Some(waiting(Job::summary(&job).status, job.about.created_ms))
        }
        Some(Found::Stored(summary)) => Some(waiting(summary.status, summary.created_ms)),
    })
}

/// The fields of a submission that has ended.
async fn ended(
    service: &Service,
    submission: &Submission,
    execution: &Execution,
    form: &Form,
) -> Result<Result<Value, NotUtf8>, Refusal> {
    let has_both =
        |report: &CompileReport| !report.stdout.0.is_empty() && !report.stderr.0.is_empty();
    let compile = match execution.compile.as_ref().is_some_and(has_both) {
        true => service.merged_output(execution, StageName::Compile).await?,
        false => Vec::new(),
    };
    let run = match submission.redirect_stderr_to_stdout {
        true => service.merged_output(execution, StageName::Run).await?,
        false => Vec::new(),
    };
    let output = Output::of(submission, execution, |stage| match stage {
        StageName::Compile => compile.clone(),
        StageName::Run => run.clone(),
    });
    let progress = Progress::Ended(execution, output);
    let about = (execution.id.as_str(), execution.created_ms);
    Ok(fields(service, about, submission, progress, form))
}

fn fields(
    service: &Service,
    (token, created_ms): (&str, u64),
    submission: &Submission,
    progress: Progress<'_>,
    form: &Form,
) -> Result<Value, NotUtf8> {
    let language = service.judge0_language(submission.language_id);
    let view = View {
        token,
        submission,
        created_ms,
        language: language.map(|language| {
            languages::name(&language, service.image_version(&language).as_deref())
        }),
        progress,
    };
    view.fields(form, &Bounds::of(service.config()))
}
