//! `POST /warm`: the warm-up of a template before it is saved.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cloude_protocol::agent::{Cause, Event, ExecuteRequest, WarmRequest};

use super::input::InputPort;
use super::runner::{self, Waiting};
use super::sink::Sink;
use super::{Environment, check, execute, files};
use crate::user::User;

/// Runs the warm-up. Returns the waiting runner, if the request has one. After an error the template must not be
/// saved.
pub fn warm(environment: &Environment, request: WarmRequest) -> Result<Option<Waiting>, String> {
    let user = environment.user().map_err(|error| error.to_string())?;
    let root = User::root();
    for stage in request.prepare {
        let argv = stage.argv.join(" ");
        let work = ExecuteRequest {
            id: "prepare".into(),
            run: stage,
            ..ExecuteRequest::default()
        };
        let (cause, code, message) = run(environment, &work, &root)?;
        if (cause, code) != (Cause::Exit, Some(0)) {
            return Err(format!(
                "prepare command `{argv}` ended with cause {cause:?}, exit code {code:?}: {message}"
            ));
        }
    }
    let tmp = environment.tmp.as_deref();
    let image_names = tmp.map_or(Ok(HashSet::new()), names)?;
    for work in &request.rehearse {
        files::write(&environment.work_dir, &work.files, &user)
            .map_err(|error| error.to_string())?;
        let (cause, _, message) = run(environment, work, &user)?;
        if cause != Cause::Exit {
            return Err(format!(
                "warm-up run {} ended with cause {cause:?}: {message}",
                work.id
            ));
        }
        remove_all_but(&HashSet::new(), &environment.work_dir)?;
        if let Some(tmp) = tmp {
            remove_all_but(&image_names, tmp)?;
        }
    }
    if request.clock_back_s > 0 {
        let back = SystemTime::now() - Duration::from_secs(request.clock_back_s);
        let ns = back
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| "clock_back_s sets the clock to before 1970")?
            .as_nanos();
        crate::identity::set_clock(ns as u64)
            .map_err(|error| format!("clock_settime(CLOCK_REALTIME): {error}"))?;
    }
    request
        .runner
        .map(|runner| runner::start(environment, runner, &user))
        .transpose()
}

/// Cause, exit code, and message with standard error of the last stage.
fn run(
    environment: &Environment,
    request: &ExecuteRequest,
    user: &User,
) -> Result<(Cause, Option<i32>, String), String> {
    check(request).map_err(|error| error.to_string())?;
    let mut sink = Collector::default();
    let port = InputPort::default();
    drop(execute(environment, request, user, None, &port, &mut sink));
    let result = sink.result.ok_or("no stage ran")?;
    // A compile stage that failed is the last one.
    let last = result.run.or(result.compile).ok_or("no stage ran")?;
    let message = last.message.unwrap_or_default() + &String::from_utf8_lossy(&sink.stderr);
    Ok((last.cause, last.exit_code, message))
}

fn names(directory: &Path) -> Result<HashSet<OsString>, String> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(|error| format!("{}: {error}", directory.display()))
}

fn remove_all_but(kept: &HashSet<OsString>, directory: &Path) -> Result<(), String> {
    for name in names(directory)?.difference(kept) {
        let path = directory.join(name);
        let removed = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        removed.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Collects the result, and the start of standard error for a message.
#[derive(Default)]
struct Collector {
    stderr: Vec<u8>,
    result: Option<cloude_protocol::agent::ExecuteResult>,
}

impl Sink for Collector {
    fn event(&mut self, event: Event) -> Option<Vec<u8>> {
        const KEPT: usize = 4096;
        match event {
            Event::Output { data, .. } if self.stderr.len() < KEPT => {
                self.stderr.extend_from_slice(&data.0);
            }
            Event::Finished(result) => self.result = Some(result),
            _ => {}
        }
        None
    }

    fn has_room(&self) -> bool {
        true
    }

    fn wants_write(&self) -> bool {
        false
    }

    fn flush_some(&mut self) {}

    fn is_gone(&self) -> bool {
        false
    }

    fn set_gone(&mut self) {}

    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}
