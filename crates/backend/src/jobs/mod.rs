//! Executions: admitted, queued, run each in a machine of its own, and remembered.

pub mod admission;
mod cache;
mod outcome;
mod recovery;
mod run;
mod service;
mod submit;
mod transcript;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent, Status, StatusResponse};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use outcome::status_of;
pub use service::{BuildError, Found, Health, Parts, Service, SubmitError};
use transcript::{Cursor, Transcript};

use cloude_engine::Failure;

/// Past so many bytes, output is sent in several events.
const CHUNK: usize = 64 << 10;

/// How the client that submits goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It goes, and asks later: the execution is durable, it survives this process.
    Leaves,
    /// It waits for the result, and cancels the execution by closing the connection.
    Waits,
    /// It waits and reads along.
    Streams,
}

/// Who cancelled an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client that waited closed its connection.
    Disconnected,
    /// `DELETE /v1/executions/{id}`.
    Requested,
    /// The server stops, and its grace period is over.
    ShutDown,
}

impl Stop {
    /// The end of the VM, with a message for [`Execution::error`].
    fn death(self) -> Failure {
        match self {
            Stop::Disconnected => Failure::cancelled("cancelled: the client disconnected"),
            Stop::Requested => Failure::cancelled("cancelled by a request to delete the execution"),
            Stop::ShutDown => Failure::shutting_down(),
        }
    }
}

/// One execution that is not finished, or was a moment ago.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The language's own name.
    pub language: String,
    client: Client,
    /// Cancelled by [`Job::stop`], and when everything must stop.
    cancel: CancellationToken,
    stopped: OnceLock<Stop>,
    progress: Mutex<Progress>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Progress {
    status: Status,
    transcript: Transcript,
    result: Option<Arc<Execution>>,
}

impl Job {
    fn new(id: String, language: String, client: Client, cancel: CancellationToken) -> Self {
        let progress = Progress {
            status: Status::Pending,
            transcript: Transcript::default(),
            result: None,
        };
        Job {
            id,
            language,
            client,
            cancel,
            stopped: OnceLock::new(),
            progress: Mutex::new(progress),
            changed: watch::Sender::new(()),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        let changed = change(&mut self.progress());
        self.changed.send_replace(());
        changed
    }

    /// Kills its VM. After the end this changes nothing.
    pub fn stop(&self, why: Stop) {
        let _ = self.stopped.set(why);
        self.cancel.cancel();
    }

    /// Who cancelled it, where it was.
    fn stopped(&self) -> Stop {
        self.stopped.get().copied().unwrap_or(Stop::ShutDown)
    }

    /// The same as the end of its VM.
    fn cancelled(&self) -> Failure {
        self.stopped().death()
    }

    /// Shows the result to whoever waits or asks.
    fn publish(&self, execution: &Arc<Execution>) {
        self.update(|progress| {
            // A reader that follows the transcript gets it whole; for all others the result has it.
            if self.client != Client::Streams {
                progress.transcript = Transcript::default();
            }
            progress.status = execution.status;
            progress.result = Some(Arc::clone(execution));
        });
    }

    /// As `GET /status/{id}` shows it.
    pub fn status(&self) -> StatusResponse {
        let progress = self.progress();
        if let Some(result) = &progress.result {
            return status_of(result);
        }
        let text = |stream| {
            String::from_utf8_lossy(progress.transcript.output(StageName::Run, stream)).into_owned()
        };
        StatusResponse {
            id: self.id.clone(),
            status: progress.status,
            language: self.language.clone(),
            exit_code: None,
            stdout: text(Stream::Stdout),
            stderr: text(Stream::Stderr),
        }
    }

    /// The result, if it ended.
    pub fn result(&self) -> Option<Arc<Execution>> {
        self.progress().result.clone()
    }

    /// Waits for the end.
    pub async fn finished(&self) -> Arc<Execution> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(result) = self.result() {
                return result;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    /// Reads along from the start; for a job that was submitted as [`Client::Streams`].
    pub fn follow(self: &Arc<Self>) -> Follower {
        Follower {
            changed: self.changed.subscribe(),
            job: Arc::clone(self),
            cursor: Cursor::default(),
            stage: Stage::Accepted,
        }
    }
}

/// One reader of an execution.
#[derive(Debug)]
pub struct Follower {
    job: Arc<Job>,
    changed: watch::Receiver<()>,
    cursor: Cursor,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Accepted,
    Output,
    Ended,
}

impl Follower {
    /// The next event; none after the result.
    pub async fn next(&mut self) -> Option<ExecutionEvent> {
        match self.stage {
            Stage::Accepted => {
                self.stage = Stage::Output;
                return Some(ExecutionEvent::Accepted {
                    id: self.job.id.clone(),
                });
            }
            Stage::Ended => return None,
            Stage::Output => {}
        }
        loop {
            if let Some(event) = self.available() {
                return Some(event);
            }
            let _ = self.changed.changed().await;
        }
    }

    fn available(&mut self) -> Option<ExecutionEvent> {
        let progress = self.job.progress();
        if let Some(event) = progress.transcript.next(&mut self.cursor, CHUNK) {
            return Some(event);
        }
        let result = progress.result.as_ref()?;
        self.stage = Stage::Ended;
        Some(ExecutionEvent::Result(Box::new(outcome::without_output(
            result,
        ))))
    }
}
