//! `run`: sends one program to the backend, relays its output, exits with its code. With `--detach` it prints the id.

mod input;
mod limits;
mod request;
mod tree;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cloude_protocol::api::{Execution, ExecutionRequest};

use crate::args;
use crate::artifacts;
use crate::client::Backend;
use crate::error::{BackendError, CliError, UsageError};
use crate::events;
use crate::outcome;
use crate::session;
use crate::terminal;

pub use input::read_code;

/// The header that makes repeated requests one execution. Only with `--detach`: closing the connection of a request that has
/// it does not cancel the execution.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The pause before a request is repeated that got no answer.
const PAUSE: Duration = Duration::from_millis(500);

/// `cloude run`. Returns the exit code as documented in docs/cli.md.
pub async fn run(args: args::Run, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
    let key = idempotency_key(args.idempotency_key.as_deref())?;
    let (json, detach, force) = (args.json, args.detach, args.force);
    let folder = args.artifact_dir.clone();
    let request = request::request(args, &backend).await?;
    terminal::show_spinner("starting");
    if detach {
        return self::detach(&request, &key, json, &backend).await;
    }
    if request.interactive.is_some() {
        let id = id(submit(&request, &key, &backend).await?, &backend)?;
        let execution = session::run(&id, &backend).await?;
        outcome::denied(&execution);
        return end(&execution, &request, folder, force, &backend).await;
    }
    if json {
        let answer: serde_json::Value = backend.post("v1/executions", &request).await?;
        terminal::clear_spinner();
        terminal::stdout(format!("{answer}\n").as_bytes())?;
        let execution: Execution =
            serde_json::from_value(answer).map_err(|error| backend.bad_body(&error))?;
        return end(&execution, &request, folder, force, &backend).await;
    }
    let response = backend.post_stream("v1/executions", &request).await?;
    let execution = events::follow(response, &backend).await?;
    outcome::denied(&execution);
    end(&execution, &request, folder, force, &backend).await
}

/// Saves artifacts and returns the exit code. A program that did not run to its end has artifacts, too.
async fn end(
    execution: &Execution,
    request: &ExecutionRequest,
    folder: PathBuf,
    force: bool,
    backend: &Backend,
) -> Result<u8, CliError> {
    let code = outcome::report(execution)?;
    if !request.artifacts.is_empty() {
        artifacts::save(execution, &folder, force, backend).await?;
    }
    Ok(code)
}

/// Starts an execution that goes on without this client. A request without an answer is repeated: its key makes the two one
/// execution.
async fn submit(
    request: &ExecutionRequest,
    key: &str,
    backend: &Backend,
) -> Result<serde_json::Value, CliError> {
    let headers = [(IDEMPOTENCY_KEY, key), ("prefer", "respond-async")];
    let deadline = Instant::now() + backend.retry_for();
    loop {
        let answer = backend.post_with("v1/executions", request, &headers).await;
        match answer {
            Err(CliError::Backend(BackendError::NoAnswer { .. } | BackendError::Broken { .. }))
                if Instant::now() + PAUSE < deadline =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// The id in the answer to [`submit`].
fn id(answer: serde_json::Value, backend: &Backend) -> Result<String, CliError> {
    #[derive(serde::Deserialize)]
    struct Accepted {
        id: String,
    }
    let accepted: Accepted =
        serde_json::from_value(answer).map_err(|error| backend.bad_body(&error))?;
    Ok(accepted.id)
}

/// Starts an execution and prints its id.
async fn detach(
    request: &ExecutionRequest,
    key: &str,
    json: bool,
    backend: &Backend,
) -> Result<u8, CliError> {
    let answer = submit(request, key, backend).await?;
    terminal::clear_spinner();
    if json {
        terminal::json(&answer)?;
    } else {
        let id = id(answer, backend)?;
        terminal::stdout(format!("{id}\n").as_bytes())?;
    }
    Ok(0)
}

/// The key of the option, else a random one: a request that is repeated after a broken connection starts one execution.
fn idempotency_key(option: Option<&str>) -> Result<String, UsageError> {
    let Some(key) = option else {
        return Ok(uuid::Uuid::new_v4().to_string());
    };
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    match visible && (1..=255).contains(&key.len()) {
        true => Ok(key.to_owned()),
        false => Err(UsageError::IdempotencyKey),
    }
}
