//! The output events of an execution. One writer, and any number of readers, each at its own position.

use cloude_protocol::Data;
use cloude_protocol::agent::{Event, StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};

/// Beyond this number of pieces, the order between streams is kept in steps of [`COARSE`] bytes.
const MAX_PIECES: usize = 1 << 20;
const COARSE: usize = 4096;

const CHANNELS: usize = 4;

fn channel(stage: StageName, stream: Stream) -> usize {
    usize::from(stage == StageName::Run) * 2 + usize::from(stream == Stream::Stderr)
}

fn names(channel: usize) -> (StageName, Stream) {
    let stage = if channel < 2 {
        StageName::Compile
    } else {
        StageName::Run
    };
    let stream = if channel.is_multiple_of(2) {
        Stream::Stdout
    } else {
        Stream::Stderr
    };
    (stage, stream)
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    Started(StageName),
    Bytes { channel: u8, length: u64 },
    Dropped { channel: u8, bytes: u64 },
}

/// The order of the pieces, and the bytes of each stream.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    pieces: Vec<Piece>,
    bytes: [Vec<u8>; CHANNELS],
    /// Bytes of each stream that no piece has yet.
    unordered: [usize; CHANNELS],
}

/// The position of a reader.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    piece: usize,
    within: u64,
    offsets: [usize; CHANNELS],
}

impl Transcript {
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
        let taken = match (result.filter(|_| own.is_empty()), stage) {
            (Some(result), StageName::Run) => Some((&result.stdout, &result.stderr)),
            (Some(result), StageName::Compile) => {
                let compile = result.compile.as_ref();
                compile.map(|compile| (&compile.stdout, &compile.stderr))
            }
            (None, _) => None,
        };
        match (taken, stream) {
            (Some((stdout, _)), Stream::Stdout) => &stdout.0,
            (Some((_, stderr)), Stream::Stderr) => &stderr.0,
            (None, _) => own,
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
                    return Some(ExecutionEvent::Started { stage });
                }
                Piece::Dropped { channel, bytes } => {
                    cursor.piece += 1;
                    let (stage, stream) = names(channel.into());
                    return Some(ExecutionEvent::Dropped {
                        stage,
                        stream,
                        bytes,
                    });
                }
                Piece::Bytes { channel, length } => {
                    let (channel, rest) = (usize::from(channel), length - cursor.within);
                    if rest > 0 {
                        return Some(self.bytes_event(cursor, channel, (rest, limit), result));
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

    fn bytes_event(
        &self,
        cursor: &mut Cursor,
        channel: usize,
        (rest, limit): (u64, usize),
        result: Option<&Execution>,
    ) -> ExecutionEvent {
        let (stage, stream) = names(channel);
        let bytes = self.output(stage, stream, result);
        let start = cursor.offsets[channel];
        let mut take = (rest as usize).min(limit.max(4));
        if (take as u64) < rest {
            take = whole_characters(&bytes[start..start + take]);
        }
        cursor.offsets[channel] += take;
        cursor.within += take as u64;
        let data = Data(bytes[start..start + take].to_vec());
        ExecutionEvent::Output {
            stage,
            stream,
            data,
        }
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
mod tests {
    use super::*;

    fn output(stage: StageName, stream: Stream, text: &str) -> Event {
        Event::Output {
            stage,
            stream,
            data: text.into(),
        }
    }

    fn read(transcript: &Transcript, cursor: &mut Cursor, limit: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(event) = transcript.next(cursor, limit, None) {
            seen.push(match event {
                ExecutionEvent::Output { stream, data, .. } => {
                    format!("{stream:?} {}", data.to_text())
                }
                ExecutionEvent::Started { stage } => format!("started {stage:?}"),
                ExecutionEvent::Dropped { bytes, .. } => format!("dropped {bytes}"),
                other => format!("{other:?}"),
            });
        }
        seen
    }

    #[test]
    fn each_reader_gets_all_events_in_order() {
        let mut transcript = Transcript::default();
        let mut cursor = Cursor::default();
        transcript.push(&Event::Started {
            stage: StageName::Run,
        });
        transcript.push(&output(StageName::Run, Stream::Stdout, "a"));
        assert_eq!(
            read(&transcript, &mut cursor, 100),
            ["started Run", "Stdout a"]
        );
        transcript.push(&output(StageName::Run, Stream::Stdout, "b"));
        assert_eq!(
            read(&transcript, &mut cursor, 100),
            ["Stdout b"],
            "grown in place"
        );
        transcript.push(&output(StageName::Run, Stream::Stderr, "c"));
        transcript.push(&Event::Dropped {
            stage: StageName::Run,
            stream: Stream::Stderr,
            bytes: 9,
        });
        transcript.push(&output(StageName::Run, Stream::Stdout, "d"));
        assert_eq!(
            read(&transcript, &mut cursor, 100),
            ["Stderr c", "dropped 9", "Stdout d"]
        );
        let late = read(&transcript, &mut Cursor::default(), 100);
        assert_eq!(
            late,
            [
                "started Run",
                "Stdout ab",
                "Stderr c",
                "dropped 9",
                "Stdout d"
            ]
        );
        let stdout = transcript.output(StageName::Run, Stream::Stdout, None);
        assert_eq!(stdout, b"abd");
    }

    #[test]
    fn a_large_piece_is_cut_between_characters() {
        let mut transcript = Transcript::default();
        transcript.push(&output(StageName::Run, Stream::Stdout, "aaaé€x"));
        let seen = read(&transcript, &mut Cursor::default(), 4);
        assert_eq!(seen, ["Stdout aaa", "Stdout é", "Stdout €x"]);
    }
}
