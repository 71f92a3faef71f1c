//! What is answered: `GET /health`, `POST /warm` and `POST /execute`, to who knows the VM's token.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cloude_protocol::agent::{Event, ExecuteRequest, Health, Identity, WarmResponse};
use subtle::ConstantTimeEq as _;

use super::connection::Connection;
use super::request::{IDLE_TIME, Request, RequestError, read_body};
use super::response::{Answer, EventStream};
use crate::execute::cgroup::available_memory;
use crate::execute::files::{self, FileError};
use crate::execute::runner::Waiting;
use crate::execute::sink::Sink as _;
use crate::execute::{self, Environment};
use crate::identity;
use crate::user::{User, UserError};

/// A request's body, in bytes; less where the guest has little memory.
pub const MAX_BODY_BYTES: u64 = 64 << 20;

/// A body that is not compared with the guest's memory.
const SMALL_BODY_BYTES: u64 = 256 << 10;

/// A template waits for as long as any host is up: a year.
const TEMPLATE_IDLE_TIME: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// One VM's API.
#[derive(Debug)]
pub struct Api {
    token: Mutex<Option<String>>,
    environment: Environment,
    ready_at_ns: u64,
    executed: AtomicBool,
    warmed: AtomicBool,
    waiting: Mutex<Option<Waiting>>,
    /// Of a template, from when it was warmed.
    user: Mutex<Option<User>>,
}

impl Api {
    /// Without a token every request is refused.
    pub fn new(token: Option<String>, environment: Environment) -> Self {
        Api {
            token: Mutex::new(token),
            environment,
            ready_at_ns: boot_time_ns(),
            executed: AtomicBool::new(false),
            warmed: AtomicBool::new(false),
            waiting: Mutex::new(None),
            user: Mutex::new(None),
        }
    }

    /// Answer requests until the connection ends.
    pub fn serve(&self, mut connection: Connection) {
        // A fork's clock may be far ahead of where its template was saved, which is in this wait.
        let idle = match self.environment.template {
            Some(_) => TEMPLATE_IDLE_TIME,
            None => IDLE_TIME,
        };
        loop {
            let keep_alive = match Request::read(&mut connection, idle) {
                Ok(request) => self.answer(&request, &mut connection),
                Err(error) => refuse(&error, &connection),
            };
            if !keep_alive {
                return connection.close();
            }
        }
    }

    /// Answer one request; gives whether the connection goes on.
    fn answer(&self, request: &Request, connection: &mut Connection) -> bool {
        let answer = match self.refusal(request) {
            Some(answer) => answer,
            None if request.path == "/health" => {
                let rest = request.content_length.unwrap_or(0) == 0 && !request.transfer_encoding;
                let keep_alive = request.keep_alive && rest;
                return Answer::ok(&self.health())
                    .send(connection, keep_alive)
                    .is_ok()
                    && keep_alive;
            }
            None if request.path == "/warm" => {
                let answer = self.warm(request, connection);
                let Some(answer) = answer else { return false };
                let keep_alive = request.keep_alive && answer.status == 200;
                return answer.send(connection, keep_alive).is_ok() && keep_alive;
            }
            None => match self.execute(request, connection) {
                Some(answer) => answer,
                None => return false,
            },
        };
        // After an error the body may not have been read, so that nothing can follow it.
        let _ = answer.send(connection, false);
        false
    }

    fn refusal(&self, request: &Request) -> Option<Answer> {
        if !self.is_authorized(request) {
            return Some(Answer::error(
                401,
                "send this VM's token: `Authorization: Bearer TOKEN`",
            ));
        }
        let method = match request.path.as_str() {
            "/health" => "GET",
            "/execute" | "/warm" => "POST",
            path => {
                return Some(Answer::error(
                    404,
                    format!(
                        "no such path {path:?}: there are GET /health, POST /warm and POST /execute"
                    ),
                ));
            }
        };
        (request.method != method).then(|| Answer {
            allow: Some(method),
            ..Answer::error(
                405,
                format!("{} takes {method}, not {}", request.path, request.method),
            )
        })
    }

    fn is_authorized(&self, request: &Request) -> bool {
        let token = lock(&self.token).clone();
        let Some((token, sent)) = token.zip(request.authorization.as_ref()) else {
            return false;
        };
        let Some((scheme, credentials)) = sent.split_at_checked("bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ")
            && bool::from(credentials.trim_ascii().ct_eq(token.as_bytes()))
    }

    fn health(&self) -> Health {
        Health {
            status: "ok".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ready_at_ns: self.ready_at_ns,
        }
    }

    /// Carry out an execution. Gives an answer still to be sent, which is not the case when events
    /// were.
    fn execute(&self, request: &Request, connection: &mut Connection) -> Option<Answer> {
        let body = match self.body(request, connection) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let parsed = serde_json::from_slice::<ExecuteRequest>(&body);
        drop(body);
        let execution = match parsed {
            Ok(execution) => execution,
            Err(error) => {
                self.end_template();
                return Some(Answer::error(400, format!("not an execution: {error}")));
            }
        };
        if self.environment.template.is_some() != execution.identity.is_some() {
            let error = if execution.identity.is_none() {
                "this is a template: it executes with an identity alone"
            } else {
                "this VM is no template and keeps its identity"
            };
            return Some(Answer::error(403, error));
        }
        if let Some(identity) = &execution.identity
            && let Err(answer) = self.take_identity(identity)
        {
            return Some(answer);
        }
        if let Err(error) = execute::check(&execution) {
            return Some(Answer::error(400, error.to_string()));
        }
        let user = match self.user() {
            Ok(user) => user,
            Err(error) => return Some(Answer::error(500, error.to_string())),
        };
        if execution.identity.is_none() && self.executed.swap(true, Ordering::SeqCst) {
            return Some(Answer::error(
                409,
                "this VM has had its execution; use another VM",
            ));
        }
        match files::write(&self.environment.work_dir, &execution.files, &user) {
            Ok(()) => {}
            Err(error @ FileError::Write { .. }) => {
                return Some(Answer::error(500, error.to_string()));
            }
            Err(error) => return Some(Answer::error(400, error.to_string())),
        }
        let waiting = lock(&self.waiting).take();
        let mut events = EventStream::start(connection);
        if execution.identity.is_some() {
            events.event(Event::Identity);
        }
        let cgroup = execute::execute(&self.environment, &execution, &user, waiting, &mut events);
        let _ = events.finish();
        drop(cgroup);
        None
    }

    fn user(&self) -> Result<User, UserError> {
        match lock(&self.user).take() {
            Some(user) => Ok(user),
            None => self.environment.user(),
        }
    }

    /// The identity, whole, before anything else; this VM's one execution is used up by it, so that
    /// nothing ever runs after one that failed.
    fn take_identity(&self, identity: &Identity) -> Result<(), Answer> {
        if self.executed.swap(true, Ordering::SeqCst) {
            let error = "this VM has had its execution; use another VM";
            return Err(Answer::error(409, error));
        }
        let cannot = |error| format!("identity: {error}; nothing will run here");
        let entropy =
            identity::check(identity).map_err(|error| Answer::error(400, cannot(error)))?;
        // Outside of a VM the clock and the names are the machine's.
        if std::process::id() == 1 {
            identity::apply(identity, entropy)
                .map_err(|error| Answer::error(500, cannot(error)))?;
        }
        *lock(&self.token) = Some(identity.token.clone());
        Ok(())
    }

    /// A fork whose one request is broken runs nothing.
    fn end_template(&self) {
        if self.environment.template.is_some() {
            self.executed.store(true, Ordering::SeqCst);
        }
    }

    /// Make this template ready to be saved. None when nobody is there to be answered.
    fn warm(&self, request: &Request, connection: &mut Connection) -> Option<Answer> {
        if self.environment.template.is_none() {
            return Some(Answer::error(403, "this VM is no template"));
        }
        let body = match self.body(request, connection) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let work = match serde_json::from_slice(&body) {
            Ok(work) => work,
            Err(error) => return Some(Answer::error(400, format!("not a warm-up: {error}"))),
        };
        drop(body);
        if self.warmed.swap(true, Ordering::SeqCst) {
            return Some(Answer::error(409, "this template was warmed before"));
        }
        Some(match execute::warm::warm(&self.environment, work) {
            Ok(waiting) => {
                let runner = waiting.is_some();
                // No program of a client's has run, and nothing else changes the image's users.
                *lock(&self.user) = self.environment.user().ok();
                *lock(&self.waiting) = waiting;
                Answer::ok(&WarmResponse { runner })
            }
            Err(error) => {
                self.end_template();
                Answer::error(500, error)
            }
        })
    }

    /// The whole body, or what to answer instead, which is nothing when nobody is there.
    fn body(
        &self,
        request: &Request,
        connection: &mut Connection,
    ) -> Result<Vec<u8>, Option<Answer>> {
        let length = match request.content_length {
            Some(length) if !request.transfer_encoding => length,
            _ => {
                return Err(Some(Answer::error(
                    411,
                    "send the body with Content-Length, not chunked",
                )));
            }
        };
        // It is held twice while it is parsed. Asking takes time, and a small one always has room.
        let limit = match length {
            ..=SMALL_BODY_BYTES => MAX_BODY_BYTES,
            _ => available_memory().map_or(MAX_BODY_BYTES, |bytes| MAX_BODY_BYTES.min(bytes / 3)),
        };
        if length > limit {
            let error = format!("the request has {length} bytes, this VM takes at most {limit}");
            return Err(Some(Answer::error(413, error)));
        }
        if self.executed.load(Ordering::SeqCst) {
            return Err(Some(Answer::error(
                409,
                "this VM has had its execution; use another VM",
            )));
        }
        read_body(connection, length as usize).map_err(|_| None)
    }
}

/// What another thread left when it panicked is whole: each is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answer what was no request; the connection does not go on.
fn refuse(error: &RequestError, connection: &Connection) -> bool {
    let status = match error {
        RequestError::Closed => return false,
        RequestError::Malformed(_) => 400,
        RequestError::Timeout => 408,
        RequestError::HeadTooLarge => 431,
    };
    let _ = Answer::error(status, error.to_string()).send(connection, false);
    false
}

fn boot_time_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
