//! An execution in memory: its progress, its output and its result.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use cloude_engine::Failure;
use cloude_protocol::agent::{Interactive, StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionSummary, Status, StatusResponse};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::about::About;
use super::input::InputPort;
use super::outcome::status_of;
use super::pins::Pin;
use super::transcript::Transcript;
use crate::store::{Ended, summary_of};
use crate::tenant::Tenant;

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
    pub about: About,
    pub(super) client: Client,
    /// Distinguishes the runs of a durable execution. 0 for one that runs once.
    pub(super) run: u32,
    /// Cancelled by [`Job::stop`], and with all other jobs at the shutdown.
    pub(super) cancel: CancellationToken,
    /// For an interactive program that this process runs.
    pub(super) input: Option<InputPort>,
    stopped: OnceLock<Stop>,
    progress: Mutex<Progress>,
    pub(super) changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct Progress {
    pub status: Status,
    pub transcript: Transcript,
    /// The result before it is published. It has the bytes of the transcript.
    pub ended: Option<Arc<Execution>>,
    pub result: Option<Arc<Execution>>,
    /// The contents of the result's artifacts.
    pub files: Vec<Bytes>,
    /// The shutdown stopped it without a result; the next start runs it again.
    pub is_left: bool,
    /// The pins of the followers' responses.
    pub pins: Vec<Weak<Pin>>,
}

impl Progress {
    fn output(&self, stream: Stream) -> &[u8] {
        let ended = self.ended.as_deref();
        self.transcript.output(StageName::Run, stream, ended)
    }

    /// Forgets the followers that are gone; true if there are others.
    pub fn is_followed(&mut self) -> bool {
        self.pins.retain(|pin| pin.strong_count() > 0);
        !self.pins.is_empty()
    }
}

impl Job {
    pub(super) fn new(about: About, client: Client, cancel: CancellationToken) -> Self {
        // A random number: two runs of one execution are in different processes.
        let run = match client {
            Client::Leaves => uuid::Uuid::new_v4().as_u128() as u32 | 1,
            Client::Waits | Client::Streams => 0,
        };
        Job {
            about,
            client,
            run,
            cancel,
            input: None,
            stopped: OnceLock::new(),
            progress: Mutex::new(Progress {
                status: Status::Pending,
                transcript: Transcript::default(),
                ended: None,
                result: None,
                files: Vec::new(),
                is_left: false,
                pins: Vec::new(),
            }),
            changed: watch::Sender::new(()),
        }
    }

    /// The job of an interactive program, if it is one.
    pub(super) fn interactive(self, interactive: Option<Interactive>) -> Self {
        let input = interactive.map(InputPort::new);
        Job { input, ..self }
    }

    /// The way to the program's standard input; `None` if it is not interactive, or if an earlier clouded ran it.
    pub fn input(&self) -> Option<&InputPort> {
        self.input.as_ref()
    }

    /// A finished execution of the store, with its order of events if it is durable.
    pub(super) fn stored(tenant: Tenant, result: Arc<Execution>, order: Option<&[u8]>) -> Self {
        let about = About {
            id: result.id.clone(),
            tenant,
            language: result.language.clone(),
            labels: result.labels.clone(),
            created_ms: result.created_ms,
        };
        let mut job = Job::new(about, Client::Waits, CancellationToken::new());
        let order = order.and_then(|order| {
            let (run, order) = order.split_first_chunk()?;
            Some((u32::from_le_bytes(*run), Transcript::of_order(order)?))
        });
        let progress = job.progress.get_mut();
        let progress = progress.unwrap_or_else(PoisonError::into_inner);
        if let Some((run, transcript)) = order {
            job.run = run;
            progress.transcript = transcript;
        }
        progress.status = result.status;
        progress.ended = Some(Arc::clone(&result));
        progress.result = Some(result);
        job
    }

    /// True if it is restarted after a crash of clouded.
    pub fn is_durable(&self) -> bool {
        self.client == Client::Leaves
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
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
    pub(super) fn stopped(&self) -> Stop {
        self.stopped.get().copied().unwrap_or(Stop::ShutDown)
    }

    /// The failure of a cancelled execution.
    pub(super) fn cancelled(&self) -> Failure {
        self.stopped().failure()
    }

    /// Makes the result, which takes the bytes of the transcript. `files`: the contents of its artifacts.
    pub(super) fn end(
        &self,
        files: Vec<Bytes>,
        result: impl FnOnce(&mut Transcript) -> Execution,
    ) -> Arc<Execution> {
        if let Some(input) = &self.input {
            input.end();
        }
        self.update(|progress| {
            progress.transcript.settle();
            let execution = Arc::new(result(&mut progress.transcript));
            progress.ended = Some(Arc::clone(&execution));
            progress.files = files;
            execution
        })
    }

    /// The result with what is stored beside it.
    pub(super) fn to_store(&self, result: Arc<Execution>) -> Ended {
        let progress = self.progress();
        let order = self.is_durable().then(|| {
            let mut order = self.run.to_le_bytes().to_vec();
            progress.transcript.write_order(&mut order);
            order
        });
        Ended {
            result,
            tenant: self.about.tenant.clone(),
            files: progress.files.clone(),
            order,
        }
    }

    /// Makes the result visible to all readers. Returns the bytes of memory that it takes beside output and artifacts.
    pub(super) fn publish(&self, execution: &Arc<Execution>) -> usize {
        self.update(|progress| {
            // Only followers read the transcript after the end; the result has the output, too.
            if !progress.is_followed() && !self.is_durable() && self.client != Client::Streams {
                progress.transcript = Transcript::default();
            }
            progress.status = execution.status;
            progress.result = Some(Arc::clone(execution));
            let overhead = progress.transcript.overhead();
            for pin in progress.pins.iter().filter_map(Weak::upgrade) {
                pin.hold(Some(execution), overhead);
            }
            overhead
        })
    }

    /// Ends its readers without a result: the shutdown stopped it, and the next start runs it again.
    pub(super) fn leave(&self) {
        self.update(|progress| progress.is_left = true);
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
            id: self.about.id.clone(),
            status: progress.status,
            language: self.about.language.clone(),
            exit_code: None,
            stdout: text(Stream::Stdout),
            stderr: text(Stream::Stderr),
        }
    }

    /// The execution without its output.
    pub fn summary(&self) -> ExecutionSummary {
        let progress = self.progress();
        match &progress.result {
            Some(result) => summary_of(result),
            None => ExecutionSummary {
                id: self.about.id.clone(),
                status: progress.status,
                language: self.about.language.clone(),
                cause: None,
                exit_code: None,
                labels: self.about.labels.clone(),
                created_ms: self.about.created_ms,
                finished_ms: None,
            },
        }
    }

    /// A copy of the bytes that a stream has so far.
    pub fn output(&self, stage: StageName, stream: Stream) -> Bytes {
        let progress = self.progress();
        let ended = progress.ended.as_deref();
        Bytes::copy_from_slice(progress.transcript.output(stage, stream, ended))
    }

    /// The result of a finished execution.
    pub fn result(&self) -> Option<Arc<Execution>> {
        self.progress().result.clone()
    }

    /// The content of an artifact, by its place in [`Execution::artifacts`].
    pub fn file(&self, index: usize) -> Option<Bytes> {
        self.progress().files.get(index).cloned()
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
}
