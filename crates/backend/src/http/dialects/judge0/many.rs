//! Many submissions: `GET /submissions` and `/submissions/batch`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::fields::Errors;
use super::form::{Form, NotUtf8};
use super::refusal::{Refusal, not_utf8, of_refused, of_submit};
use super::submissions::{Options, find, translate};
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::output;
use crate::http::peer::Peer;
use crate::jobs::Service;
use crate::keys::Caller;

/// The most submissions of a batch.
pub const MAX_BATCH: usize = 20;
/// Submissions of a page, if the client does not say.
const PAGE: u64 = 20;
/// The most submissions of a page.
const MAX_PAGE: u64 = 200;

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
    let (mut submissions, mut left) = (Vec::new(), answer_bytes(&service));
    for token in &found.ids {
        // One that was removed meanwhile is left out.
        if let Some(fields) = found_one(&service, &caller, token, (&form, &mut left)).await? {
            submissions.push(fields);
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
    let (mut submissions, mut left) = (Vec::new(), answer_bytes(&service));
    for token in tokens {
        let token = token.trim();
        let fields = found_one(&service, &caller, token, (&form, &mut left)).await?;
        submissions.push(fields.unwrap_or_default());
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

/// Bytes of the texts of an answer with several submissions: a part of all output that responses may hold.
fn answer_bytes(service: &Service) -> usize {
    service.config().limits.result_bytes_in_flight / 4
}

/// The fields of a submission that the caller may see. `left`: bytes of texts that the answer may still have.
async fn found_one(
    service: &Service,
    caller: &Caller,
    token: &str,
    (form, left): (&Form, &mut usize),
) -> Result<Option<Value>, Refusal> {
    let fields = match find(service, caller, token, form).await? {
        Some(Ok(fields)) => fields,
        Some(Err(NotUtf8)) => return Err(Refusal::Bad(not_utf8("one or more submissions"))),
        None => return Ok(None),
    };
    let texts = fields.as_object().into_iter().flat_map(Map::values);
    let bytes = texts.filter_map(Value::as_str).map(str::len).sum();
    match left.checked_sub(bytes) {
        Some(rest) => *left = rest,
        None => {
            let most = answer_bytes(service);
            return Err(Refusal::Bad(format!(
                "the answer has more than {most} bytes: ask for fewer submissions or fields"
            )));
        }
    }
    Ok(Some(fields))
}
