//! The endpoints `GET /health`, `POST /warm`, `POST /execute` and `POST /input`, for clients with the VM's token.

use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cloude_protocol::agent::{
    Event, ExecuteRequest, ExecuteResult, Health, Identity, WarmResponse,
};
use subtle::ConstantTimeEq as _;

use super::body::{self, MAX_BODY_BYTES};
use super::connection::Connection;
use super::request::{IDLE_TIME, Request, RequestError, read_body};
use super::response::{Answer, EventStream};
use crate::execute::disk;
use crate::execute::files::{self, FileError};
use crate::execute::input::{InputError, InputPort};
use crate::execute::runner::Waiting;
use crate::execute::sink::Sink as _;
use crate::execute::{self, Environment};
use crate::identity;
use crate::user::{User, UserError};

/// How long a template's connection may be idle: a year.
const TEMPLATE_IDLE_TIME: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// The answer to a second execution.
const ALREADY_EXECUTED: &str = "this VM has run its one execution; use another VM";

/// The API of one VM.
#[derive(Debug)]
pub struct Api {
    token: Mutex<Option<String>>,
    environment: Environment,
    ready_at_ns: u64,
    executed: AtomicBool,
    warmed: AtomicBool,
    waiting: Mutex<Option<Waiting>>,
    input: InputPort,
    /// The user of programs that ask for none, looked up when a template was warmed.
    user: Mutex<Option<User>>,
}

impl Api {
    /// Without a token every request is answered 401.
    pub fn new(token: Option<String>, environment: Environment) -> Self {
        Api {
            token: Mutex::new(token),
            environment,
            ready_at_ns: boot_time_ns(),
            executed: AtomicBool::new(false),
            warmed: AtomicBool::new(false),
            waiting: Mutex::new(None),
            input: InputPort::default(),
            user: Mutex::new(None),
        }
    }

    /// Answers the requests of a connection until it ends.
    pub fn serve(&self, mut connection: Connection) {
        // A template is saved during this wait. A fork may continue it much later.
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

    /// Answers one request. Returns true if the connection stays open.
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
            None if request.path == "/input" => {
                let answer = match self.input(request, connection) {
                    Ok(()) => Answer::empty(),
                    Err(Some(answer)) => answer,
                    Err(None) => return false,
                };
                // After a 409 the body was read: a client can go on with the next input.
                let keep_alive = request.keep_alive && matches!(answer.status, 204 | 409);
                return answer.send(connection, keep_alive).is_ok() && keep_alive;
            }
            None => match self.execute(request, connection) {
                Some(answer) => answer,
                None => return false,
            },
        };
        // After an error the body may be unread: the connection closes.
        let _ = answer.send(connection, false);
        false
    }

    fn refusal(&self, request: &Request) -> Option<Answer> {
        if !self.is_authorized(request) {
            return Some(Answer::error(
                401,
                "missing or wrong token: send `Authorization: Bearer TOKEN`",
            ));
        }
        let method = match request.path.as_str() {
            "/health" => "GET",
            "/execute" | "/warm" | "/input" => "POST",
            path => {
                return Some(Answer::error(
                    404,
                    format!(
                        "no such endpoint {path:?}; there are GET /health, POST /warm, POST /execute and POST /input"
                    ),
                ));
            }
        };
        (request.method != method).then(|| Answer {
            allow: Some(method),
            ..Answer::error(
                405,
                format!("{} needs {method}, not {}", request.path, request.method),
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

    /// `POST /execute`. Returns the answer to send; none if events were sent.
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
                return Some(Answer::error(400, format!("invalid request body: {error}")));
            }
        };
        if self.environment.template.is_some() != execution.identity.is_some() {
            let error = if execution.identity.is_none() {
                "this VM is a template: send the execution with an identity"
            } else {
                "this VM is not a template: send the execution without an identity"
            };
            return Some(Answer::error(403, error));
        }
        if let Some(identity) = &execution.identity
            && let Err(answer) = self.apply_identity(identity)
        {
            return Some(answer);
        }
        if let Err(error) = execute::check(&execution) {
            return Some(Answer::error(400, error.to_string()));
        }
        let own_user = match self.user() {
            Ok(user) => user,
            Err(error) => return Some(Answer::error(500, error.to_string())),
        };
        if execution.identity.is_none() && self.executed.swap(true, Ordering::SeqCst) {
            return Some(Answer::error(409, ALREADY_EXECUTED));
        }
        let user = match &execution.user {
            None => own_user,
            Some(spec) => match self.environment.requested_user(spec) {
                Ok(user) => user,
                Err(error) => {
                    not_executed(&execution, error, connection);
                    return None;
                }
            },
        };
        if let Some(bytes) = execution.disk_bytes
            && let Err(errno) = disk::set_size(&self.environment.work_dir, bytes)
        {
            let error = format!("disk_bytes: cannot limit the work directory to {bytes}: {errno}");
            return Some(Answer::error(500, error));
        }
        match files::write(&self.environment.work_dir, &execution.files, &user) {
            Ok(()) => {}
            Err(FileError::Write { path, error })
                if execution.disk_bytes.is_some() && error.raw_os_error() == Some(libc::ENOSPC) =>
            {
                let error = format!("files: {path:?} does not fit into disk_bytes; raise it");
                return Some(Answer::error(400, error));
            }
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
        let cgroup = execute::execute(
            &self.environment,
            &execution,
            &user,
            waiting,
            &self.input,
            &mut events,
        );
        let _ = events.finish();
        drop(cgroup);
        None
    }

    /// `POST /input`. An error is the answer to send instead, none if the client disconnected.
    fn input(&self, request: &Request, connection: &mut Connection) -> Result<(), Option<Answer>> {
        let input = body::read_input(request, connection)?;
        let applied = self.input.apply(&input, connection.as_fd());
        applied.map_err(|error| match error {
            InputError::Gone => None,
            InputError::NotRunning | InputError::Closed => {
                Some(Answer::error(409, error.to_string()))
            }
            InputError::NoTerminal | InputError::Size { .. } | InputError::Signal(_) => {
                Some(Answer::error(400, error.to_string()))
            }
        })
    }

    fn user(&self) -> Result<User, UserError> {
        match lock(&self.user).take() {
            Some(user) => Ok(user),
            None => self.environment.user(),
        }
    }

    /// Applies the identity before anything else of the request. It marks the VM as used first, so that no later
    /// request can run a program after a failure.
    fn apply_identity(&self, identity: &Identity) -> Result<(), Answer> {
        if self.executed.swap(true, Ordering::SeqCst) {
            let error = ALREADY_EXECUTED;
            return Err(Answer::error(409, error));
        }
        let refused = |error| format!("{error}; this VM will not run a program");
        let entropy =
            identity::check(identity).map_err(|error| Answer::error(400, refused(error)))?;
        // As an ordinary process, clock and names belong to the machine.
        if std::process::id() == 1 {
            identity::apply(identity, entropy)
                .map_err(|error| Answer::error(500, refused(error)))?;
        }
        *lock(&self.token) = Some(identity.token.clone());
        Ok(())
    }

    /// Marks a fork as used after a malformed request.
    fn end_template(&self) {
        if self.environment.template.is_some() {
            self.executed.store(true, Ordering::SeqCst);
        }
    }

    /// `POST /warm`. Returns none if the client disconnected.
    fn warm(&self, request: &Request, connection: &mut Connection) -> Option<Answer> {
        if self.environment.template.is_none() {
            return Some(Answer::error(
                403,
                "this VM is not a template: boot it with `template` in boot.json",
            ));
        }
        let body = match self.body(request, connection) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let work = match serde_json::from_slice(&body) {
            Ok(work) => work,
            Err(error) => {
                return Some(Answer::error(400, format!("invalid request body: {error}")));
            }
        };
        drop(body);
        if self.warmed.swap(true, Ordering::SeqCst) {
            return Some(Answer::error(409, "this template is warmed already"));
        }
        Some(match execute::warm::warm(&self.environment, work) {
            Ok(waiting) => {
                let runner = waiting.is_some();
                // No program of a client has run, so that /etc/passwd is still the image's.
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

    /// Reads the whole body. An error is the answer to send instead, none if the client disconnected.
    fn body(
        &self,
        request: &Request,
        connection: &mut Connection,
    ) -> Result<Vec<u8>, Option<Answer>> {
        let length = body::length(request, MAX_BODY_BYTES)?;
        if self.executed.load(Ordering::SeqCst) {
            return Err(Some(Answer::error(409, ALREADY_EXECUTED)));
        }
        read_body(connection, length).map_err(|_| None)
    }
}

/// Answers a request whose user the image does not have: the VM is as good as any, so that this is a result.
fn not_executed(execution: &ExecuteRequest, error: String, connection: &mut Connection) {
    let mut events = EventStream::start(connection);
    if execution.identity.is_some() {
        events.event(Event::Identity);
    }
    events.event(Event::Finished(ExecuteResult {
        run: Some(execute::result::infrastructure(error)),
        ..ExecuteResult::default()
    }));
    let _ = events.finish();
}

/// Ignores poisoning: every critical section is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answers a malformed request. Returns false: the connection closes.
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
