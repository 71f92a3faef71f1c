//! `/v1/executions` and `/v1/languages`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cloude_protocol::api::{
    ExecutionList, ExecutionRequest, ExecutionSummary, LanguageDetails, LanguageInfo, Status,
};
use serde::Deserialize;

use super::error::{ApiError, RequestError};
use super::extract::{ApiJson, ApiPath, ApiQuery};
use super::negotiate::{RESPOND_ASYNC, accepted_form, idempotency_key, prefers_async};
use super::peer::Peer;
use super::{events, output};
use crate::jobs::{Client, Found, Job, MAX_PAGE, Refused, Service, Stop, Submitted};
use crate::keys::Caller;
use crate::store::Filter;

/// The longest wait of `GET /v1/executions/{id}`.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Executions of a page of the list, if the client does not say.
const PAGE: usize = 50;

/// `POST /v1/executions`
pub async fn create(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<ExecutionRequest>,
) -> Result<Response, ApiError> {
    let tenant = caller.tenant().clone();
    let form = accepted_form(&headers);
    let is_async = prefers_async(&headers);
    if request.interactive.is_some() && !is_async && form.is_none() {
        return Err(Refused::NotAttachable.into());
    }
    if let Some(key) = idempotency_key(&headers)? {
        // Durable, because the client may come back for the result.
        let job = match service.submit_once(tenant, request, key).await? {
            Submitted::New(job) => job,
            Submitted::Earlier(id) => match service.readable(&caller, &id).await? {
                Some(job) => job,
                None => return Err(RequestError::unknown_execution(&id).into()),
            },
        };
        return match form {
            _ if is_async => Ok(accepted(&job)),
            Some(form) => Ok(events::of_job(&service, job, (), peer, form)),
            None => {
                let execution = service.result_of(&job).await?;
                Ok(output::execution(&service, &peer, execution))
            }
        };
    }
    if is_async {
        let job = service.submit(tenant, request, Client::Leaves).await?;
        return Ok(accepted(&job));
    }
    if let Some(form) = form {
        let job = service.submit(tenant, request, Client::Streams).await?;
        let cancel = CancelOnDrop(Arc::clone(&job));
        return Ok(events::of_job(&service, job, cancel, peer, form));
    }
    let job = service.submit(tenant, request, Client::Waits).await?;
    // The server drops this handler, and with it the guard, when the connection is closed.
    let cancel = CancelOnDrop(Arc::clone(&job));
    let execution = job.finished().await;
    drop(cancel);
    Ok(output::execution(&service, &peer, execution))
}

/// `202 Accepted` with the place of the execution (RFC 7240, 4.1).
fn accepted(job: &Job) -> Response {
    let place = format!("/v1/executions/{}", job.about.id);
    let mut response = output::accepted(place, &job.summary());
    let applied = HeaderValue::from_static(RESPOND_ASYNC);
    response.headers_mut().insert("preference-applied", applied);
    response
}

fn unfinished(summary: ExecutionSummary) -> Response {
    (StatusCode::ACCEPTED, Json(summary)).into_response()
}

/// The query of [`read`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    wait: Option<String>,
}

impl WaitQuery {
    /// `30s`, `500ms`, or a number of seconds.
    fn time(&self) -> Result<Duration, RequestError> {
        let Some(text) = &self.wait else {
            return Ok(Duration::ZERO);
        };
        let seconds = text.parse().map(Duration::from_secs);
        let time = seconds.or_else(|_| humantime::parse_duration(text));
        match time {
            Ok(time) if time <= MAX_WAIT => Ok(time),
            _ => Err(RequestError::Query(
                "`wait` must be a time of at most 60 s, such as `30s`".into(),
            )),
        }
    }
}

/// `GET /v1/executions/{id}`: 202 with a summary if the execution does not end within the time to wait.
pub async fn read(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> Result<Response, ApiError> {
    let time = query.time()?;
    match service.find(&caller, &id).await? {
        Some(Found::Ended(execution)) => Ok(output::execution(&service, &peer, execution)),
        Some(Found::Unfinished(job)) => Ok(match service.wait(&job, time).await {
            Some(execution) => output::execution(&service, &peer, execution),
            None => unfinished(job.summary()),
        }),
        Some(Found::Stored(summary)) => Ok(unfinished(summary)),
        None => Err(RequestError::unknown_execution(&id).into()),
    }
}

/// `DELETE /v1/executions/{id}`: returns the result, whose cause is `cancelled` unless it was finished before.
pub async fn cancel(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, ApiError> {
    match service.cancel(&caller, &id).await? {
        Some(execution) => Ok(output::execution(&service, &peer, execution)),
        None => Err(RequestError::unknown_execution(&id).into()),
    }
}

/// `GET /v1/executions`
pub async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    ApiQuery(pairs): ApiQuery<Vec<(String, String)>>,
) -> Result<Json<ExecutionList>, ApiError> {
    let filter = filter(&service, pairs).map_err(RequestError::Query)?;
    Ok(Json(service.list(&caller, filter).await?))
}

/// Reads the query of a list; `label` may be there several times.
fn filter(service: &Service, pairs: Vec<(String, String)>) -> Result<Filter, String> {
    let mut filter = Filter {
        limit: PAGE,
        ..Filter::default()
    };
    for (name, value) in pairs {
        match name.as_str() {
            "status" => {
                let status = serde_json::from_value::<Status>(value.into());
                let allowed = "`status` must be `pending`, `running`, `done` or `error`";
                filter.status = Some(status.map_err(|_| allowed.to_owned())?);
            }
            // An alias stands for its language.
            "language" => filter.language = Some(service.language_name(&value).unwrap_or(value)),
            "label" => {
                let label = value.split_once(':');
                let (name, value) = label.ok_or("`label` must be NAME:VALUE")?;
                filter.labels.push((name.to_owned(), value.to_owned()));
            }
            "limit" => {
                let limit = value.parse().ok();
                filter.limit = limit
                    .filter(|limit| (1..=MAX_PAGE).contains(limit))
                    .ok_or(format!("`limit` must be 1 to {MAX_PAGE}"))?;
            }
            "cursor" => {
                let cursor = value.split_once('-');
                let cursor = cursor.and_then(|(ms, id)| Some((ms.parse().ok()?, id.to_owned())));
                let unknown = "`cursor` must be `next_cursor` of the page before";
                filter.before = Some(cursor.ok_or(unknown)?);
            }
            _ => {
                return Err(
                    "it has an unknown name: use `status`, `language`, `label`, `limit` and `cursor`".into(),
                );
            }
        }
    }
    Ok(filter)
}

/// `GET /v1/languages`
pub async fn languages(
    State(service): State<Service>,
) -> Result<Json<Vec<LanguageInfo>>, ApiError> {
    Ok(Json(service.languages()))
}

/// `GET /v1/languages/{name}`
pub async fn language(
    State(service): State<Service>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<LanguageDetails>, ApiError> {
    match service.language_details(&name) {
        Some(details) => Ok(Json(details)),
        None => Err(RequestError::unknown_language(&name).into()),
    }
}

/// Cancels the execution on drop. Has no effect on a finished one.
pub struct CancelOnDrop(pub Arc<Job>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.stop(Stop::Disconnected);
    }
}
