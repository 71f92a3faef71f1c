//! The order in which the pieces of an execution's output were written, and its stored form.

use cloude_protocol::agent::{StageName, Stream};

/// Streams of both stages.
pub const CHANNELS: usize = 4;

/// The number of a stage's stream.
pub fn channel(stage: StageName, stream: Stream) -> usize {
    usize::from(stage == StageName::Run) * 2 + usize::from(stream == Stream::Stderr)
}

/// The reverse of [`channel`].
pub fn names(channel: usize) -> (StageName, Stream) {
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

/// A part of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Started(StageName),
    Bytes { channel: u8, length: u64 },
    Dropped { channel: u8, bytes: u64 },
}

/// First byte of a stored piece. The number of the channel is added to the last two.
const COMPILE_STARTED: u8 = 0;
const RUN_STARTED: u8 = 1;
const BYTES: u8 = 2;
const DROPPED: u8 = BYTES + CHANNELS as u8;

/// The stored form: for each piece one byte, and its length as a variable-length integer (LEB128).
pub fn encode(pieces: &[Piece], stored: &mut Vec<u8>) {
    for piece in pieces {
        match *piece {
            Piece::Started(StageName::Compile) => stored.push(COMPILE_STARTED),
            Piece::Started(StageName::Run) => stored.push(RUN_STARTED),
            Piece::Bytes { channel, length } => put(BYTES + channel, length, stored),
            Piece::Dropped { channel, bytes } => put(DROPPED + channel, bytes, stored),
        }
    }
}

fn put(kind: u8, mut number: u64, stored: &mut Vec<u8>) {
    stored.push(kind);
    while number >= 0x80 {
        stored.push(number as u8 | 0x80);
        number >>= 7;
    }
    stored.push(number as u8);
}

/// The pieces of a stored form; `None` if it is damaged.
pub fn decode(mut stored: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some((kind, rest)) = stored.split_first() {
        stored = rest;
        pieces.push(match *kind {
            COMPILE_STARTED => Piece::Started(StageName::Compile),
            RUN_STARTED => Piece::Started(StageName::Run),
            kind if kind < DROPPED => Piece::Bytes {
                channel: kind - BYTES,
                length: take(&mut stored)?,
            },
            kind if kind < DROPPED + CHANNELS as u8 => Piece::Dropped {
                channel: kind - DROPPED,
                bytes: take(&mut stored)?,
            },
            _ => return None,
        });
    }
    Some(pieces)
}

fn take(stored: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = stored.split_first()?;
        *stored = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_order_is_read_back() {
        let bytes = |channel, length| Piece::Bytes { channel, length };
        let pieces = vec![
            Piece::Started(StageName::Compile),
            bytes(1, 0),
            bytes(0, 127),
            Piece::Started(StageName::Run),
            bytes(3, 128),
            Piece::Dropped {
                channel: 2,
                bytes: u64::MAX,
            },
        ];
        let mut stored = Vec::new();

        encode(&pieces, &mut stored);

        assert_eq!(decode(&stored), Some(pieces));
        assert_eq!(decode(&stored[..stored.len() - 1]), None);
        assert_eq!(decode(&[99]), None);
    }
}
