//! Readers of an execution's events. An execution has any number of them, each at its own place.

use std::sync::Arc;

use cloude_protocol::api::ExecutionEvent;
use tokio::sync::watch;

use super::input::InputPort;
use super::job::Job;
use super::pins::Pin;
use super::transcript::{Cursor, EventId, Transcript};
use crate::store::without_output;

/// Maximum bytes of one output event.
const CHUNK: usize = 64 << 10;

/// A reader of a job's events.
#[derive(Debug)]
pub struct Follower {
    /// None only while this is dropped.
    pin: Option<Arc<Pin>>,
    job: Arc<Job>,
    changed: watch::Receiver<()>,
    cursor: Cursor,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Accepted,
    /// The reader has events of another run.
    Restarted,
    Output,
    Ended,
}

impl Follower {
    /// A reader of all events, or of those after `after`. `pin` counts the output from the end of the execution.
    pub fn of(job: Arc<Job>, pin: Pin, after: Option<EventId>) -> Self {
        let (stage, cursor) = match after {
            None => (Stage::Accepted, Cursor::default()),
            Some(id) if id.run != job.run => (Stage::Restarted, Cursor::default()),
            Some(id) if id.is_end => (Stage::Ended, Cursor::default()),
            Some(id) => (Stage::Output, Cursor::after(id.position)),
        };
        let pin = Arc::new(pin);
        let mut progress = job.progress();
        progress.is_followed();
        progress.pins.push(Arc::downgrade(&pin));
        if let Some(result) = progress.result.clone() {
            if progress.transcript.is_empty() {
                progress.transcript = Transcript::of_result(&result);
            }
            pin.hold(Some(&result), progress.transcript.overhead());
        }
        drop(progress);
        Follower {
            pin: Some(pin),
            changed: job.changed.subscribe(),
            job,
            cursor,
            stage,
        }
    }

    /// True if the reader has all events.
    pub fn is_at_end(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The next event, and the id for [`Follower::of`] that continues after it. `None` after the result, or if the
    /// shutdown stopped a durable execution.
    pub async fn next(&mut self) -> Option<(EventId, ExecutionEvent)> {
        if let Some(pin) = &self.pin {
            pin.taken();
        }
        match self.stage {
            Stage::Accepted | Stage::Restarted => {
                let id = self.job.about.id.clone();
                let event = match self.stage {
                    Stage::Restarted => ExecutionEvent::Restarted { id },
                    _ => ExecutionEvent::Accepted {
                        id,
                        interactive: self.job.input().map(InputPort::interactive),
                    },
                };
                self.stage = Stage::Output;
                return Some((self.id(), event));
            }
            Stage::Ended => return None,
            Stage::Output => {}
        }
        loop {
            if let Some(event) = self.available() {
                return event.map(|event| (self.id(), event));
            }
            let _ = self.changed.changed().await;
        }
    }

    fn id(&self) -> EventId {
        EventId {
            run: self.job.run,
            position: self.cursor.position(),
            is_end: self.stage == Stage::Ended,
        }
    }

    /// The next event, or none after the last one; `None` if the reader has to wait.
    fn available(&mut self) -> Option<Option<ExecutionEvent>> {
        let progress = self.job.progress();
        let ended = progress.ended.as_deref();
        let transcript = &progress.transcript;
        if let Some(event) = transcript.next(&mut self.cursor, CHUNK, ended) {
            return Some(Some(event));
        }
        if progress.is_left {
            return Some(None);
        }
        let result = progress.result.as_ref()?;
        self.stage = Stage::Ended;
        let result = Box::new(without_output(result));
        Some(Some(ExecutionEvent::Result(result)))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.pin = None;
        let mut progress = self.job.progress();
        // The cache may keep the job for its result.
        if progress.result.is_some() && !progress.is_followed() && !self.job.is_durable() {
            progress.transcript = Transcript::default();
        }
    }
}
