//! Piston v2: `/api/v2/execute`, `/connect`, `/runtimes` and `/packages`, also below `/api/v2/piston` as in its closed public API.
//! Errors are `{"message": …}`.

mod connect;
mod files;
mod request;
mod response;
mod runtimes;
mod start;

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use cloude_protocol::api::{ExecutionEvent, Problem};
use cloude_protocol::keys::Scope;
use serde_json::{Map, Value, json};

use super::{add, key};
use crate::http::executions::CancelOnDrop;
use crate::http::extract::UntypedJson;
use crate::http::output;
use crate::http::peer::Peer;
use crate::jobs::{Follower, Service, SubmitError};
use crate::keys::Caller;
use response::Output;
use runtimes::{Package, Runtime, piston_name, version};
use start::{Refusal, start};

/// The folder of all paths.
const ROOT: &str = "/api/v2/";

/// The routes.
pub fn routes(service: &Service) -> Router<Service> {
    let with_key = |scope, methods| key::require(service, scope, key::bare, methods);
    let mut router = Router::new();
    for (name, methods) in [
        ("execute", with_key(Scope::Run, post(execute))),
        ("connect", with_key(Scope::Run, get(connect::connect))),
        ("runtimes", with_key(Scope::Read, get(list_runtimes))),
        ("packages", with_key(Scope::Read, get(list_packages))),
    ] {
        router = add(router, [ROOT, "/api/v2/piston/"], name, methods);
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
    let started = start(&service, &caller, body, None).await?;
    let (job, language, version) = (started.job, started.language, started.version);
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
