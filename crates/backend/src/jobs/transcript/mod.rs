//! The output events of an execution. One writer, and any number of readers, each at its own position.

mod order;
mod position;

use cloude_protocol::Data;
use cloude_protocol::agent::{Event, StageName, StageResult, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};

use crate::store::output_of;
use order::{CHANNELS, Piece, channel, names};

pub use position::{EventId, Position};

/// Beyond this number of pieces, the order between streams is kept in steps of [`COARSE`] bytes.
const MAX_PIECES: usize = 1 << 20;
const COARSE: usize = 4096;

/// The order of the pieces, and the bytes of each stream.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    pieces: Vec<Piece>,
    bytes: [Vec<u8>; CHANNELS],
    /// Bytes of each stream that no piece has yet.
    unordered: [usize; CHANNELS],
}

/// The place of a reader. The default is the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    piece: usize,
    within: u64,
    /// Bytes of each stream before this place.
    passed: [u64; CHANNELS],
    /// The output that the reader has: more than `passed` while a reader that continues is moved to its place.
    position: Position,
}

impl Cursor {
    /// The place of a reader that has this much already.
    pub fn after(position: Position) -> Self {
        Cursor {
            position,
            ..Cursor::default()
        }
    }

    /// The output that the reader has.
    pub fn position(&self) -> Position {
        self.position
    }

    fn pass(&mut self, channel: usize, bytes: u64) {
        self.passed[channel] += bytes;
        self.within += bytes;
    }
}

impl Transcript {
    /// The transcript of an execution of which the result alone is known: first standard output, then standard error.
    pub fn of_result(result: &Execution) -> Self {
        let mut transcript = Transcript::default();
        if let Some(compile) = &result.compile {
            let output = [&compile.stdout, &compile.stderr];
            transcript.stage(StageName::Compile, output, Some(&compile.result));
        }
        let output = [&result.stdout, &result.stderr];
        let has_output = output.iter().any(|stream| !stream.0.is_empty());
        if result.run.is_some() || has_output {
            transcript.stage(StageName::Run, output, result.run.as_ref());
        }
        transcript
    }

    fn stage(&mut self, stage: StageName, output: [&Data; 2], result: Option<&StageResult>) {
        self.pieces.push(Piece::Started(stage));
        let dropped = result.map_or([0; 2], |r| [r.stdout_dropped, r.stderr_dropped]);
        let streams = [Stream::Stdout, Stream::Stderr].into_iter();
        for ((stream, data), bytes) in streams.zip(output).zip(dropped) {
            let channel = channel(stage, stream) as u8;
            let length = data.0.len() as u64;
            self.pieces.push(Piece::Bytes { channel, length });
            if bytes > 0 {
                self.pieces.push(Piece::Dropped { channel, bytes });
            }
        }
    }

    /// The transcript of a result whose order is stored; `None` if the stored form is damaged.
    pub fn of_order(stored: &[u8]) -> Option<Self> {
        Some(Transcript {
            pieces: order::decode(stored)?,
            ..Transcript::default()
        })
    }

    /// Appends the order in the form for [`Transcript::of_order`].
    pub fn write_order(&self, stored: &mut Vec<u8>) {
        order::encode(&self.pieces, stored);
    }

    /// True if it has no piece.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Appends an event. `Finished` is not part of the transcript.
    pub fn push(&mut self, event: &Event) {
        match event {
            Event::Started { stage } => self.pieces.push(Piece::Started(*stage)),
            Event::Output {
                stage,
                stream,
                data,
            } => {
                self.push_bytes(channel(*stage, *stream), &data.0);
            }
            Event::Dropped {
                stage,
                stream,
                bytes,
            } => {
                self.settle();
                let channel = channel(*stage, *stream) as u8;
                self.pieces.push(Piece::Dropped {
                    channel,
                    bytes: *bytes,
                });
            }
            Event::Identity
            | Event::Artifact { .. }
            | Event::ArtifactData { .. }
            | Event::Finished(_) => self.settle(),
        }
    }

    /// Bytes of memory beside the output.
    pub fn overhead(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>()
    }

    fn push_bytes(&mut self, channel: usize, data: &[u8]) {
        self.bytes[channel].extend_from_slice(data);
        self.unordered[channel] += data.len();
        if self.pieces.len() < MAX_PIECES || self.unordered[channel] >= COARSE {
            self.order(channel);
        }
    }

    fn order(&mut self, channel: usize) {
        let added = std::mem::take(&mut self.unordered[channel]) as u64;
        match self.pieces.last_mut() {
            Some(Piece::Bytes {
                channel: last,
                length,
            }) if usize::from(*last) == channel => {
                *length += added;
            }
            _ if added > 0 => self.pieces.push(Piece::Bytes {
                channel: channel as u8,
                length: added,
            }),
            _ => {}
        }
    }

    /// Assigns the remaining bytes to pieces. Called at the end.
    pub fn settle(&mut self) {
        for channel in 0..CHANNELS {
            self.order(channel);
        }
    }

    /// Takes the bytes of a stream for the result. From then on readers get them from the result.
    pub fn take(&mut self, stage: StageName, stream: Stream) -> Data {
        let mut bytes = std::mem::take(&mut self.bytes[channel(stage, stream)]);
        bytes.shrink_to_fit();
        Data(bytes)
    }

    /// The bytes of a stream so far, which the result has taken if there is one.
    pub fn output<'a>(
        &'a self,
        stage: StageName,
        stream: Stream,
        result: Option<&'a Execution>,
    ) -> &'a [u8] {
        let own = &self.bytes[channel(stage, stream)];
        match result {
            Some(result) if own.is_empty() => &output_of(result, stage, stream).0,
            _ => own,
        }
    }

    /// The next event for this reader, with at most `limit` bytes; `None` if there is none yet. `result`: the result
    /// that has taken the bytes, if there is one.
    pub fn next(
        &self,
        cursor: &mut Cursor,
        limit: usize,
        result: Option<&Execution>,
    ) -> Option<ExecutionEvent> {
        loop {
            match *self.pieces.get(cursor.piece)? {
                Piece::Started(stage) => {
                    cursor.piece += 1;
                    if cursor.position.started(stage) {
                        return Some(ExecutionEvent::Started { stage });
                    }
                }
                Piece::Dropped { channel, bytes } => {
                    cursor.piece += 1;
                    let (stage, stream) = names(channel.into());
                    if cursor.position.dropped(channel.into()) {
                        return Some(ExecutionEvent::Dropped {
                            stage,
                            stream,
                            bytes,
                        });
                    }
                }
                Piece::Bytes { channel, length } => {
                    let channel = usize::from(channel);
                    let mut rest = length - cursor.within;
                    // Bytes that the reader has from its earlier connection.
                    let had = cursor.position.offsets[channel] - cursor.passed[channel];
                    let skipped = had.min(rest);
                    cursor.pass(channel, skipped);
                    rest -= skipped;
                    if rest > 0
                        && let Some(event) =
                            self.bytes_event(cursor, channel, (rest, limit), result)
                    {
                        return Some(event);
                    }
                    // The last piece may still grow.
                    if cursor.piece + 1 == self.pieces.len() {
                        return None;
                    }
                    cursor.piece += 1;
                    cursor.within = 0;
                }
            }
        }
    }

    /// Both streams of a stage in their order, of a result that has taken the bytes.
    pub fn merged(&self, stage: StageName, result: &Execution) -> Vec<u8> {
        let (mut cursor, mut merged) = (Cursor::default(), Vec::new());
        while let Some(event) = self.next(&mut cursor, usize::MAX, Some(result)) {
            match event {
                ExecutionEvent::Output {
                    stage: of, data, ..
                } if of == stage => {
                    merged.extend_from_slice(&data.0);
                }
                _ => {}
            }
        }
        merged
    }

    /// The next bytes of a stream; `None` if the result lacks them, because the store was full.
    fn bytes_event(
        &self,
        cursor: &mut Cursor,
        channel: usize,
        (rest, limit): (u64, usize),
        result: Option<&Execution>,
    ) -> Option<ExecutionEvent> {
        let (stage, stream) = names(channel);
        let bytes = self.output(stage, stream, result);
        let start = usize::try_from(cursor.passed[channel]).ok()?;
        let bytes = bytes.get(start..).filter(|bytes| !bytes.is_empty())?;
        let rest = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
        let mut take = rest.min(limit.max(4));
        if take < rest {
            take = whole_characters(&bytes[..take]);
        }
        cursor.pass(channel, take as u64);
        cursor.position.offsets[channel] = cursor.passed[channel];
        let data = Data(bytes[..take].to_vec());
        Some(ExecutionEvent::Output {
            stage,
            stream,
            data,
        })
    }
}

/// The length of a chunk without an incomplete UTF-8 sequence at its end, so that text stays text in JSON. The whole
/// chunk if it is not UTF-8.
fn whole_characters(chunk: &[u8]) -> usize {
    match std::str::from_utf8(chunk) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => chunk.len(),
    }
}

#[cfg(test)]
mod tests;
