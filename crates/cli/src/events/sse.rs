//! Parses server-sent events (WHATWG HTML, 9.2.6).

use super::split::Lines;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The field `event`; empty if absent.
    pub name: String,
    /// The last `id` of the stream up to here.
    pub id: String,
    /// The lines of `data`, joined by LF.
    pub data: Vec<u8>,
}

/// The stream, and the event that is not whole yet.
#[derive(Default)]
pub struct Parser {
    lines: Lines,
    event: Event,
}

/// The fields of an event so far. The id is that of the stream.
#[derive(Default)]
struct Event {
    name: String,
    id: String,
    data: Option<Vec<u8>>,
}

impl Parser {
    /// Takes the next bytes of the stream. Returns the events that are complete with them.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.lines.push(bytes);
        let mut frames = Vec::new();
        while let Some(line) = self.lines.next_line() {
            frames.extend(self.event.line(line.strip_suffix(b"\r").unwrap_or(line)));
        }
        frames
    }
}

impl Event {
    /// Reads a line; an empty one ends the event.
    fn line(&mut self, line: &[u8]) -> Option<Frame> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = self.data.take()?;
            let id = self.id.clone();
            return Some(Frame { name, id, data });
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (field, value) = match colon {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"id" => self.id = String::from_utf8_lossy(value).into_owned(),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            // Comments, which keep the connection alive, and fields of later versions.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Parser};

    const STREAM: &str = ": hello\n\nevent: output\nid: 7\ndata: {\"a\":\ndata: 1}\n\nretry: 5\r\nevent:started\r\ndata:x\r\n\r\n";

    fn expected() -> [Frame; 2] {
        let frame = |name: &str, id: &str, data: &str| Frame {
            name: name.to_owned(),
            id: id.to_owned(),
            data: data.as_bytes().to_vec(),
        };
        [
            frame("output", "7", "{\"a\":\n1}"),
            frame("started", "7", "x"),
        ]
    }

    #[test]
    fn events_keep_names_ids_and_data() {
        assert_eq!(Parser::default().push(STREAM.as_bytes()), expected());
    }

    #[test]
    fn events_may_arrive_byte_by_byte() {
        let mut parser = Parser::default();
        let bytes = STREAM.as_bytes().chunks(1);
        let frames: Vec<Frame> = bytes.flat_map(|byte| parser.push(byte)).collect();
        assert_eq!(frames, expected());
    }

    #[test]
    fn an_event_without_its_empty_line_is_not_complete() {
        assert_eq!(Parser::default().push(b"event: output\ndata: x\n"), []);
    }
}
