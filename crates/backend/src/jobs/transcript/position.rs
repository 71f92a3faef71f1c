//! The position of a reader in the events of an execution, as `Last-Event-ID` carries it.

use std::fmt;
use std::str::FromStr;

use cloude_protocol::agent::StageName;

use super::order::CHANNELS;

/// The output that a reader has, however it was cut into events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bits of events without bytes: two for started stages, and [`CHANNELS`] for dropped output.
    marks: u8,
    /// Bytes of each stream.
    pub offsets: [u64; CHANNELS],
}

impl Position {
    fn mark(&mut self, bit: usize) -> bool {
        let is_new = self.marks & 1 << bit == 0;
        self.marks |= 1 << bit;
        is_new
    }

    /// Notes that a stage was started; true if that is new.
    pub fn started(&mut self, stage: StageName) -> bool {
        self.mark(usize::from(stage == StageName::Run))
    }

    /// Notes that output of a stream was dropped; true if that is new.
    pub fn dropped(&mut self, channel: usize) -> bool {
        self.mark(2 + channel)
    }
}

/// The id of an event: the position after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// The run of the execution: a durable one runs again after a crash of clouded.
    pub run: u32,
    pub position: Position,
    /// The event was the last one.
    pub is_end: bool,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { marks, offsets } = self.position;
        write!(f, "{:x}-{marks:x}", self.run)?;
        for offset in offsets {
            write!(f, "-{offset}")?;
        }
        f.write_str(if self.is_end { "-end" } else { "" })
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (text, is_end) = match text.strip_suffix("-end") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(());
        let run = u32::from_str_radix(next()?, 16).map_err(drop)?;
        let marks = u8::from_str_radix(next()?, 16).map_err(drop)?;
        let mut offsets = [0; CHANNELS];
        for offset in &mut offsets {
            *offset = next()?.parse().map_err(drop)?;
        }
        match parts.next() {
            None => Ok(EventId {
                run,
                position: Position { marks, offsets },
                is_end,
            }),
            Some(_) => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back() {
        let mut position = Position {
            marks: 0,
            offsets: [0, 1, u64::MAX, 7],
        };
        assert!(position.started(StageName::Run) && position.dropped(3));
        for is_end in [false, true] {
            let id = EventId {
                run: 0xdead_beef,
                position,
                is_end,
            };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "x", "0-0-0-0-0", "0-0-0-0-0-0-0", "0-0-0-0-0--1"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
