//! Executions: admission, queue, run in a fresh VM, result.

mod admission;
mod attempt;
mod cache;
mod outcome;
mod pins;
mod recovery;
mod refused;
mod run;
mod service;
mod submit;
mod transcript;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent, Status, StatusResponse};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Private functions that the fuzz targets call (`fuzz/targets/execution_body.rs`).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::jobs::admission::admit;
}

pub use outcome::{StatusView, status_of};
pub use pins::{Pin, Pins};
pub use refused::Refused;
pub use service::{BuildError, Found, Health, Parts, Service, SubmitError};
use transcript::{Cursor, Transcript};

use cloude_engine::Failure;

use crate::store::without_output;
use crate::tenant::Tenant;

/// Maximum bytes of one output event.
const CHUNK: usize = 64 << 10;
/// Maximum bytes of each stream in the status of an unfinished execution.
const SHOWN: usize = 1 << 20;

/// How the client receives the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It polls for the result. The execution is durable: it is restarted after a crash of clouded.
    Leaves,
    /// It waits for the result. Closing the connection cancels the execution.
    Waits,
    /// It reads events until the result. Closing the connection cancels the execution.
    Streams,
}

/// Why an execution was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client that waited for it closed the connection.
    Disconnected,
    /// A client sent `DELETE /v1/executions/{id}`.
    Requested,
    /// The server stops, and `shutdown.grace_ms` is over.
    ShutDown,
}

impl Stop {
    /// The failure, whose message becomes [`Execution::error`].
    fn failure(self) -> Failure {
        match self {
            Stop::Disconnected => Failure::cancelled("cancelled: the client disconnected"),
            Stop::Requested => Failure::cancelled("cancelled by a request to delete the execution"),
            Stop::ShutDown => Failure::shutting_down(),
        }
    }
}

/// An execution that is unfinished, or finished and still in memory.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub tenant: Tenant,
    /// The name of the language, not an alias.
    pub language: String,
    /// The labels of the request.
    pub labels: BTreeMap<String, String>,
    /// When the request arrived, in milliseconds since 1970.
    pub created_ms: u64,
    client: Client,
    /// Cancelled by [`Job::stop`], and with all other jobs at the shutdown.
    cancel: CancellationToken,
    stopped: OnceLock<Stop>,
    progress: Mutex<Progress>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Progress {
    status: Status,
    transcript: Transcript,
    /// The result before it is published. It has the bytes of the transcript.
    ended: Option<Arc<Execution>>,
    result: Option<Arc<Execution>>,
    /// The pin of the follower's response.
    pin: Weak<Pin>,
}

impl Progress {
    fn output(&self, stream: Stream) -> &[u8] {
        let ended = self.ended.as_deref();
        self.transcript.output(StageName::Run, stream, ended)
    }
}

impl Job {
    fn new(
        (id, tenant): (String, Tenant),
        language: String,
        (labels, created_ms): (BTreeMap<String, String>, u64),
        client: Client,
        cancel: CancellationToken,
    ) -> Self {
        let progress = Progress {
            status: Status::Pending,
            transcript: Transcript::default(),
            ended: None,
            result: None,
            pin: Weak::new(),
        };
        Job {
            id,
            tenant,
            language,
            labels,
            created_ms,
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

    /// Cancels the execution and kills its VM. Has no effect on a finished one.
    pub fn stop(&self, why: Stop) {
        let _ = self.stopped.set(why);
        self.cancel.cancel();
    }

    /// Why it was cancelled; without a call of [`Job::stop`] it was the shutdown.
    fn stopped(&self) -> Stop {
        self.stopped.get().copied().unwrap_or(Stop::ShutDown)
    }

    /// The failure of a cancelled execution.
    fn cancelled(&self) -> Failure {
        self.stopped().failure()
    }

    /// Makes the result, which takes the bytes of the transcript.
    fn end(&self, result: impl FnOnce(&mut Transcript) -> Execution) -> Arc<Execution> {
        self.update(|progress| {
            progress.transcript.settle();
            let execution = Arc::new(result(&mut progress.transcript));
            progress.ended = Some(Arc::clone(&execution));
            execution
        })
    }

    /// Makes the result visible to all readers.
    fn publish(&self, execution: &Arc<Execution>) {
        self.update(|progress| {
            // Only a streaming client reads the transcript after the end; the result has the output, too.
            if self.client != Client::Streams {
                progress.transcript = Transcript::default();
            }
            progress.status = execution.status;
            progress.result = Some(Arc::clone(execution));
            if let Some(pin) = progress.pin.upgrade() {
                pin.hold(Some(execution), progress.transcript.overhead());
            }
        });
    }

    /// The execution as `GET /status/{id}` shows it.
    pub fn status(&self) -> StatusResponse {
        let progress = self.progress();
        if let Some(result) = &progress.result {
            return status_of(result);
        }
        let text = |stream| {
            let bytes = progress.output(stream);
            String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
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

    /// The result of a finished execution.
    pub fn result(&self) -> Option<Arc<Execution>> {
        self.progress().result.clone()
    }

    /// Waits for the result.
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

    /// The reader of all events, for a job of [`Client::Streams`]. `pin` counts the output from the end of the
    /// execution.
    pub fn follow(self: &Arc<Self>, pin: Pin) -> Follower {
        let pin = Arc::new(pin);
        let mut progress = self.progress();
        progress.pin = Arc::downgrade(&pin);
        if let Some(result) = &progress.result {
            pin.hold(Some(result), progress.transcript.overhead());
        }
        drop(progress);
        Follower {
            pin,
            changed: self.changed.subscribe(),
            job: Arc::clone(self),
            cursor: Cursor::default(),
            stage: Stage::Accepted,
        }
    }
}

/// The reader of a job's events.
#[derive(Debug)]
pub struct Follower {
    pin: Arc<Pin>,
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
    /// The next event; `None` after the result.
    pub async fn next(&mut self) -> Option<ExecutionEvent> {
        self.pin.taken();
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
        let ended = progress.ended.as_deref();
        let transcript = &progress.transcript;
        if let Some(event) = transcript.next(&mut self.cursor, CHUNK, ended) {
            return Some(event);
        }
        let result = progress.result.as_ref()?;
        self.stage = Stage::Ended;
        Some(ExecutionEvent::Result(Box::new(without_output(result))))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut progress = self.job.progress();
        // The cache may keep the job for its result.
        if progress.result.is_some() {
            progress.transcript = Transcript::default();
        }
    }
}
