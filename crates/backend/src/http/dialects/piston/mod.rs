//! Piston v2: `/api/v2/execute`, `/runtimes` and `/packages`, also below `/api/v2/piston` as in its closed public API.
//! Errors are `{"message": …}`.

mod end;
mod files;
mod request;
mod response;
mod runtimes;

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use cloude_protocol::api::{ExecutionEvent, Problem};
use cloude_protocol::keys::Scope;
use serde_json::{Map, Value, json};

use crate::http::auth;
use crate::http::error::{ApiError, RESTART_RETRY_S};
use crate::http::executions::CancelOnDrop;
use crate::http::extract::UntypedJson;
use crate::http::output;
use crate::http::peer::Peer;
use crate::jobs::{Client, Follower, Service, SubmitError};
use crate::keys::Caller;
use request::{Asked, limit_refused};
use response::{Failed, Output};
use runtimes::{Package, Range, Runtime, own_name, piston_name, version};

/// The folder of all paths.
const ROOT: &str = "/api/v2/";

/// The routes. Some clients end a path with a slash.
pub fn routes(service: &Service) -> Router<Service> {
    let with_key = |scope, methods: MethodRouter<Service>| {
        let methods = auth::require(service, scope, methods);
        methods.route_layer(middleware::from_fn(bare_key))
    };
    let run = with_key(Scope::Run, post(execute));
    let runtimes = with_key(Scope::Read, get(list_runtimes));
    let packages = with_key(Scope::Read, get(list_packages));
    let mut router = Router::new();
    for (name, methods) in [
        ("execute", run),
        ("runtimes", runtimes),
        ("packages", packages),
    ] {
        for folder in ["", "piston/"] {
            for end in ["", "/"] {
                router = router.route(&format!("{ROOT}{folder}{name}{end}"), methods.clone());
            }
        }
    }
    router
}

/// Replaces the bodies of errors below `/api/v2` by those of Piston.
pub async fn messages(request: Request, next: Next) -> Response {
    let is_ours = request.uri().path().starts_with(ROOT);
    let mut response = next.run(request).await;
    if is_ours && let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let body = json!({"message": problem.detail}).to_string();
        *response.body_mut() = body.into();
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// Clients of Piston send a key as `Authorization: KEY`, without the word `Bearer`.
async fn bare_key(mut request: Request, next: Next) -> Response {
    let value = request.headers().get(AUTHORIZATION);
    let key = value.and_then(|value| value.to_str().ok());
    if let Some(key) = key.filter(|key| !key.is_empty() && !key.contains(' '))
        && let Ok(mut bearer) = HeaderValue::try_from(format!("Bearer {key}"))
    {
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    next.run(request).await
}

/// A request that fails here, or as on `/v1`.
enum Refusal {
    Invalid(String),
    Failed(Failed),
    Api(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Refusal::Api(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Refusal::Api(error) => return error.into_response(),
            Refusal::Invalid(message) => (StatusCode::BAD_REQUEST, message),
            Refusal::Failed(Failed::Infrastructure(message)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, message)
            }
            Refusal::Failed(Failed::Stopped(message)) => (StatusCode::SERVICE_UNAVAILABLE, message),
        };
        let mut response = (status, Json(json!({"message": message}))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let after = HeaderValue::from(RESTART_RETRY_S);
            response.headers_mut().insert(RETRY_AFTER, after);
        }
        response
    }
}

/// `GET /api/v2/runtimes`: the languages whose images are built.
async fn list_runtimes(State(service): State<Service>) -> Json<Vec<Runtime>> {
    let languages = service.languages().into_iter();
    let installed = languages.filter(|info| info.image_ready);
    let runtimes = installed.filter_map(|info| {
        let language = service.language(&info.name)?;
        let version = version(&language, info.version.as_deref());
        Some(Runtime::of(&info, &version))
    });
    Json(runtimes.collect())
}

/// `GET /api/v2/packages`: all languages.
async fn list_packages(State(service): State<Service>) -> Json<Vec<Package>> {
    let languages = service.languages().into_iter();
    let packages = languages.filter_map(|info| {
        let language = service.language(&info.name)?;
        Some(Package {
            language: piston_name(&info.name).to_owned(),
            language_version: version(&language, info.version.as_deref()).to_string(),
            installed: info.image_ready,
        })
    });
    Json(packages.collect())
}

/// `POST /api/v2/execute`
async fn execute(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(caller): Extension<Caller>,
    UntypedJson(body): UntypedJson<Map<String, Value>>,
) -> Result<Response, Refusal> {
    let asked = Asked::of(body).map_err(Refusal::Invalid)?;
    let unknown = || {
        let (language, version) = (&asked.language, &asked.version);
        Refusal::Invalid(format!("{language}-{version} runtime is unknown"))
    };
    let language = service
        .language(own_name(&asked.language))
        .ok_or_else(unknown)?;
    let version = version(&language, service.image_version(&language).as_deref());
    let range = Range::parse(&asked.version).ok_or_else(unknown)?;
    if !range.has(&version) {
        return Err(unknown());
    }
    let memory_field = asked.memory_field();
    let memory_mib = language.machine.memory_mib;
    let default_mib = memory_mib.unwrap_or(service.config().vm.memory_mib);
    let request = asked
        .request(&language, default_mib)
        .map_err(Refusal::Invalid)?;

    let submitted = service.submit(caller.tenant().clone(), request, Client::Streams);
    let job = submitted.await.map_err(|error| match &error {
        SubmitError::Refused(refused) => match limit_refused(refused, memory_field) {
            Some(message) => Refusal::Invalid(message),
            None => error.into(),
        },
        _ => error.into(),
    })?;
    // The server drops this handler, and with it the guard, when the connection is closed.
    let _cancel = CancelOnDrop(Arc::clone(&job));
    let mut follower = Follower::of(job, service.pins().pin(peer.closer()), None);
    let mut seen = Output::default();
    let execution = loop {
        match follower.next().await {
            Some((_, ExecutionEvent::Result(execution))) => break execution,
            Some((_, event)) => seen.push(&event),
            None => return Err(SubmitError::Draining.into()),
        }
    };
    drop(follower);
    let name = piston_name(&language.name);
    let answer = seen.answer(&execution, name, version.to_string());
    Ok(output::value(
        &service,
        &peer,
        &answer.map_err(Refusal::Failed)?,
    ))
}
