//! The output of a stage: reads its pipes and sends what its limit keeps as events.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use cloude_protocol::Data;
use cloude_protocol::agent::{Event, StageName, Stream};

use super::output::HeadTail;
use super::pipes::{CHUNK_BYTES, chunk_end, read_into};
use super::sink::Sink;

/// The bytes to keep of each stream.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimit {
    /// Bytes to keep of each stream.
    pub bytes: u64,
    /// Bytes to keep of each stream's end at most: they stay in the agent's memory.
    pub tail_max: u64,
    /// Keep the first bytes alone, because the stage is killed beyond them.
    pub kill: bool,
}

/// Both output streams of a stage.
#[derive(Debug)]
pub struct Relay<'a> {
    stage: StageName,
    console: Option<&'a File>,
    limit: OutputLimit,
    outputs: [Option<OutputPipe>; 2],
    announced: bool,
    buffer: Vec<u8>,
    totals: [(u64, u64); 2],
    overflowed: bool,
}

#[derive(Debug)]
struct OutputPipe {
    pipe: File,
    stream: Stream,
    kept: HeadTail,
}

impl<'a> Relay<'a> {
    /// `console` receives a copy, as far as it can be written without blocking. With `announced`, `Started` was sent
    /// already. A terminal has no `stderr`: both streams are `stdout`.
    pub fn new(
        stage: StageName,
        console: Option<&'a File>,
        announced: bool,
        limit: OutputLimit,
        (stdout, stderr): (File, Option<File>),
    ) -> Self {
        let output = |pipe, stream| OutputPipe {
            pipe,
            stream,
            kept: match limit.kill {
                true => HeadTail::head_only(limit.bytes),
                false => HeadTail::new(limit.bytes, limit.tail_max),
            },
        };
        Relay {
            stage,
            console,
            limit,
            outputs: [
                Some(output(stdout, Stream::Stdout)),
                stderr.map(|stderr| output(stderr, Stream::Stderr)),
            ],
            announced,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            totals: [(0, 0); 2],
            overflowed: false,
        }
    }

    /// True until both streams are at their end.
    pub fn is_open(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// The descriptor of a stream that is not at its end.
    pub fn pipe(&self, index: usize) -> Option<BorrowedFd<'_>> {
        Some(self.outputs[index].as_ref()?.pipe.as_fd())
    }

    /// True once a stream has more bytes than its limit, if the stage is to be killed then.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Bytes written and bytes dropped, of standard output and of standard error.
    pub fn totals(&self) -> [(u64, u64); 2] {
        self.totals
    }

    /// Sends `Started` once. The program's first output can be read before init's report.
    pub fn announce(&mut self, sink: &mut dyn Sink) {
        if !std::mem::replace(&mut self.announced, true) {
            sink.event(Event::Started { stage: self.stage });
        }
    }

    /// Reads what a stream has, without blocking, and sends it.
    pub fn read(&mut self, index: usize, sink: &mut dyn Sink) {
        let Some(output) = &mut self.outputs[index] else {
            return;
        };
        self.buffer.clear();
        match read_into(&output.pipe, &mut self.buffer) {
            Ok(0) => self.end(index, sink),
            Ok(_) => {
                let stream = output.stream;
                if let Some(mut console) = self.console {
                    // The console is non-blocking: bytes that it has no room for are lost there.
                    let _ = console.write(&self.buffer);
                }
                output.kept.push(&mut self.buffer);
                self.overflowed |= self.limit.kill && output.kept.total > self.limit.bytes;
                self.announce(sink);
                self.send(stream, sink);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // EIO of a terminal: no process has it open any more.
            Err(_) => self.end(index, sink),
        }
    }

    fn end(&mut self, index: usize, sink: &mut dyn Sink) {
        let Some(output) = self.outputs[index].take() else {
            return;
        };
        let stream = output.stream;
        let total = output.kept.total;
        let ending = output.kept.finish();
        self.totals[index] = (total, ending.dropped);
        if ending.dropped > 0 {
            sink.event(Event::Dropped {
                stage: self.stage,
                stream,
                bytes: ending.dropped,
            });
        }
        // Events of at most a chunk: clients bound the length of a line.
        let mut rest = ending.tail.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(chunk_end(rest));
            self.buffer.clear();
            self.buffer.extend_from_slice(piece);
            self.send(stream, sink);
            rest = later;
        }
    }

    /// Sends the buffer as one event.
    fn send(&mut self, stream: Stream, sink: &mut dyn Sink) {
        if self.buffer.is_empty() {
            return;
        }
        let data = Data(std::mem::take(&mut self.buffer));
        let event = Event::Output {
            stage: self.stage,
            stream,
            data,
        };
        self.buffer = sink.event(event).unwrap_or_default();
    }
}
