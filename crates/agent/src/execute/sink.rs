//! Where events go: to the client as they happen, or into one answer.

use std::os::fd::BorrowedFd;

use cloude_protocol::agent::{Event, ExecuteResponse, ExecuteResult, Output, StageName, Stream};

/// Takes events. Never blocks: a stage asks [`Sink::has_room`] before it reads more output, so that
/// a slow client slows the program down instead of filling the agent's memory.
pub trait Sink {
    /// Take one event, whatever [`Sink::has_room`] says. Gives back the buffer of an
    /// [`Event::Output`], for the next.
    fn event(&mut self, event: Event) -> Option<Vec<u8>>;

    /// As [`Sink::event`], of one that is soon followed by another: it may go with that one.
    fn hold(&mut self, event: Event) -> Option<Vec<u8>> {
        self.event(event)
    }

    /// Send what was held, if it may be a while until something follows.
    fn release(&mut self) {}

    /// Whether more output may be read from the program.
    fn has_room(&self) -> bool;

    /// Whether something waits for the client to take it.
    fn wants_write(&self) -> bool;

    /// Send what the client takes now.
    fn flush_some(&mut self);

    /// The client went away, or takes nothing any more: whatever runs for it is to end.
    fn is_gone(&self) -> bool;

    /// The client's connection was seen to be closed by the client.
    fn set_gone(&mut self);

    /// The client's connection, to be waited for.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// Collects everything for an [`ExecuteResponse`].
#[derive(Debug, Default)]
pub struct Collector {
    compile: Output,
    run: Output,
    result: Option<ExecuteResult>,
}

impl Collector {
    /// The whole answer, once the execution has finished.
    pub fn into_response(self) -> Option<ExecuteResponse> {
        let result = self.result?;
        Some(ExecuteResponse {
            result,
            compile: self.compile,
            run: self.run,
        })
    }

    /// Take one event; as [`Sink::event`].
    pub fn event(&mut self, event: Event) -> Option<Vec<u8>> {
        match event {
            Event::Output {
                stage,
                stream,
                data,
            } => {
                let output = match stage {
                    StageName::Compile => &mut self.compile,
                    StageName::Run => &mut self.run,
                };
                let kept = match stream {
                    Stream::Stdout => &mut output.stdout.0,
                    Stream::Stderr => &mut output.stderr.0,
                };
                kept.extend_from_slice(&data.0);
                Some(data.0)
            }
            Event::Finished(result) => {
                self.result = Some(result);
                None
            }
            Event::Identity | Event::Started { .. } | Event::Dropped { .. } => None,
        }
    }
}
