//! What is answered: `GET /health` and `POST /execute`, to who knows the VM's token.

use std::sync::atomic::{AtomicBool, Ordering};

use cloude_protocol::agent::{ExecuteRequest, Health};
use subtle::ConstantTimeEq as _;

use super::connection::Connection;
use super::request::{Request, RequestError, read_body};
use super::response::{Answer, EventStream, OneShot};
use crate::execute::cgroup::available_memory;
use crate::execute::files::{self, FileError};
use crate::execute::{self, Environment};

/// A request's body, in bytes; less where the guest has little memory.
pub const MAX_BODY_BYTES: u64 = 64 << 20;

/// One VM's API.
#[derive(Debug)]
pub struct Api {
    token: Option<String>,
    environment: Environment,
    ready_at_ns: u64,
    executed: AtomicBool,
}

impl Api {
    /// Without a token every request is refused.
    pub fn new(token: Option<String>, environment: Environment) -> Self {
        Api {
            token,
            environment,
            ready_at_ns: boot_time_ns(),
            executed: AtomicBool::new(false),
        }
    }

    /// Answer requests until the connection ends.
    pub fn serve(&self, mut connection: Connection) {
        loop {
            let keep_alive = match Request::read(&mut connection) {
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
            "/execute" => "POST",
            path => {
                return Some(Answer::error(
                    404,
                    format!("no such path {path:?}: there are GET /health and POST /execute"),
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
        let Some((token, sent)) = self.token.as_ref().zip(request.authorization.as_ref()) else {
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
            Err(error) => return Some(Answer::error(400, format!("not an execution: {error}"))),
        };
        if let Err(error) = execute::check(&execution) {
            return Some(Answer::error(400, error.to_string()));
        }
        let user = match self.environment.user() {
            Ok(user) => user,
            Err(error) => return Some(Answer::error(500, error.to_string())),
        };
        if self.executed.swap(true, Ordering::SeqCst) {
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
        if request.wants_events {
            let mut events = EventStream::start(connection);
            execute::execute(&self.environment, &execution, &user, &mut events);
            let _ = events.finish();
            return None;
        }
        let mut one = OneShot::new(connection);
        execute::execute(&self.environment, &execution, &user, &mut one);
        Some(match one.collector.into_response() {
            Some(response) => Answer::ok(&response),
            None => Answer::error(500, "the execution gave no result"),
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
        // It is held twice while it is parsed.
        let limit =
            available_memory().map_or(MAX_BODY_BYTES, |bytes| MAX_BODY_BYTES.min(bytes / 3));
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
        if request.expects_continue {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            connection
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n", deadline)
                .map_err(|_| None)?;
        }
        read_body(connection, length as usize).map_err(|_| None)
    }
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
