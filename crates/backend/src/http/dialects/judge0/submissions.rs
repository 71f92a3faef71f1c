//! `/submissions`.

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

/// The most submissions of a batch.
pub const MAX_BATCH: usize = 20;
/// Submissions of a page, if the client does not say.
const PAGE: u64 = 20;
/// The most submissions of a page.
const MAX_PAGE: u64 = 200;
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
    tokens: Option<String>,
    page: Option<i64>,
    per_page: Option<i64>,
}

impl Options {
    fn is_base64(&self) -> bool {
        self.base64_encoded.as_deref() == Some("true")
    }

    fn form(&self) -> Result<Form, Refusal> {
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

/// `GET /submissions`
pub async fn index(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiQuery(options): ApiQuery<Options>,
) -> Result<Response, Refusal> {
    let form = options.form()?;
    let invalid = |name: &str, value| Refusal::Bad(format!("invalid {name}: {value}"));
    let page = options.page.unwrap_or(1);
    let Some(page) = u64::try_from(page).ok().filter(|page| *page > 0) else {
        return Err(invalid("page", page));
    };
    let per_page = options.per_page.unwrap_or(PAGE as i64);
    let size = u64::try_from(per_page)
        .ok()
        .filter(|size| (1..=MAX_PAGE).contains(size));
    let Some(size) = size else {
        return Err(invalid("per_page", per_page));
    };
    let offset = (page - 1).saturating_mul(size);
    let found = service.dialects(&caller, size, offset).await?;
    let mut submissions = Vec::new();
    for token in &found.ids {
        // One that was removed meanwhile is left out.
        match find(&service, &caller, token, &form).await? {
            Some(Ok(fields)) => submissions.push(fields),
            Some(Err(NotUtf8)) => return Err(Refusal::Bad(not_utf8("one or more submissions"))),
            None => {}
        }
    }
    let pages = found.total.div_ceil(size).max(1);
    let meta = json!({
        "current_page": page,
        "next_page": (page < pages).then_some(page + 1),
        "prev_page": (page > 1).then(|| page - 1),
        "total_pages": pages,
        "total_count": found.total,
    });
    let answer = json!({"submissions": submissions, "meta": meta});
    Ok(output::value(&service, &peer, &answer))
}

/// `POST /submissions/batch`
pub async fn create_batch(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiQuery(options): ApiQuery<Options>,
    ApiJson(mut body): ApiJson<Map<String, Value>>,
) -> Result<Response, Refusal> {
    let submissions = match body.remove("submissions") {
        Some(Value::Array(submissions)) => submissions,
        _ => Vec::new(),
    };
    check_batch(submissions.len())?;
    // The place of each valid one in the answer, and the errors of the others.
    let (mut answer, mut valid) = (Vec::new(), Vec::new());
    for submission in submissions {
        let translated = match submission {
            Value::Object(body) => translate(&service, body, options.is_base64()),
            _ => {
                let mut errors = Errors::default();
                errors.add("base", "must be an object");
                Err(errors.into())
            }
        };
        match translated {
            Ok(translated) => {
                valid.push((answer.len(), translated));
                answer.push(Value::Null);
            }
            Err(Refusal::Invalid(errors)) => answer.push(json!(errors)),
            Err(other) => return Err(other),
        }
    }
    let (places, translated): (Vec<_>, Vec<_>) = valid.into_iter().unzip();
    let submitted = service.submit_each(caller.tenant(), translated);
    let mut status = StatusCode::UNPROCESSABLE_ENTITY;
    for (place, outcome) in places.into_iter().zip(submitted.await.map_err(of_submit)?) {
        answer[place] = match outcome {
            Ok(job) => {
                status = StatusCode::CREATED;
                json!({"token": job.about.id})
            }
            Err(refused) => {
                let message = refused.to_string();
                match of_refused(refused) {
                    Refusal::Invalid(errors) => json!(errors),
                    _ => json!({"base": [message]}),
                }
            }
        };
    }
    Ok((status, Json(answer)).into_response())
}

/// `GET /submissions/batch?tokens=…`: null for a token that is unknown.
pub async fn show_batch(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiQuery(options): ApiQuery<Options>,
) -> Result<Response, Refusal> {
    let form = options.form()?;
    let tokens = options.tokens.unwrap_or_default();
    let tokens: Vec<&str> = tokens
        .split(',')
        .filter(|token| !token.is_empty())
        .collect();
    check_batch(tokens.len())?;
    let mut submissions = Vec::new();
    for token in tokens {
        submissions.push(match find(&service, &caller, token.trim(), &form).await? {
            Some(Ok(fields)) => fields,
            Some(Err(NotUtf8)) => return Err(Refusal::Bad(not_utf8("one or more submissions"))),
            None => Value::Null,
        });
    }
    let answer = json!({"submissions": submissions});
    Ok(output::value(&service, &peer, &answer))
}

fn check_batch(size: usize) -> Result<(), Refusal> {
    match size {
        0 => Err(Refusal::Bad(
            "there should be at least one submission in a batch".into(),
        )),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Refusal::Bad(format!(
            "number of submissions in a batch should be less than or equal to {MAX_BATCH}"
        ))),
    }
}

/// Checks a submission and translates it.
fn translate(
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
async fn find(
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
