//! Responses with the output of an execution. Large output is encoded piece by piece while the client reads, so that a
//! response never holds a second copy.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloude_protocol::Data;
use cloude_protocol::api::{CompileReport, Execution, StatusResponse};
use futures_util::stream;
use serde::Serialize;

use super::error::ApiError;
use super::peer::Peer;
use crate::jobs::{Pin, Service, StatusView};
use crate::store::{output_bytes, without_output};

/// Output up to this length is encoded at once.
const SMALL: usize = 64 << 10;
/// Bytes of output in one piece. Divisible by 3, so that base64 of all but the last needs no padding.
const PIECE: usize = 48 << 10;

/// `200 OK` with a result.
pub fn execution(service: &Service, peer: &Peer, execution: Arc<Execution>) -> Response {
    if output_bytes(&execution) <= SMALL {
        return Json(&*execution).into_response();
    }
    let marks = Marks::new();
    let compile = execution.compile.as_ref().map(|compile| CompileReport {
        result: compile.result.clone(),
        stdout: marks.text(Stream::CompileStdout),
        stderr: marks.text(Stream::CompileStderr),
        shared: compile.shared,
    });
    let shown = Execution {
        stdout: marks.text(Stream::Stdout),
        stderr: marks.text(Stream::Stderr),
        compile,
        ..without_output(&execution)
    };
    let parts = marks.parts(&shown, |stream| {
        match stream.of(&execution).as_json_text() {
            Some(_) => Form::Text,
            None => Form::Base64,
        }
    });
    match parts {
        Ok(parts) => respond(service, peer, execution, parts),
        Err(error) => error.into_response(),
    }
}

/// `200 OK` with a result as `GET /status/{id}` shows it.
pub fn status(service: &Service, peer: &Peer, execution: Arc<Execution>) -> Response {
    if output_bytes(&execution) <= SMALL {
        return Json(crate::jobs::status_of(&execution)).into_response();
    }
    let marks = Marks::new();
    let view = StatusView::of(&execution);
    let stderr = if std::ptr::eq(view.stderr, &execution.stderr) {
        Stream::Stderr
    } else {
        Stream::CompileStderr
    };
    let shown = StatusResponse {
        stdout: marks.name(Stream::Stdout),
        stderr: marks.name(stderr) + &view.response.stderr,
        ..view.response
    };
    match marks.parts(&shown, |_| Form::Lossy) {
        Ok(parts) => respond(service, peer, execution, parts),
        Err(error) => error.into_response(),
    }
}

/// `200 OK` with the status of an unfinished execution.
pub fn unfinished(service: &Service, peer: &Peer, status: StatusResponse) -> Response {
    value(service, peer, &status)
}

/// `200 OK` with a value of a response that has output.
pub fn value(service: &Service, peer: &Peer, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) if json.len() <= SMALL => {
            ([(CONTENT_TYPE, "application/json")], json).into_response()
        }
        Ok(json) => {
            let pin = service.pins().pin(peer.closer());
            pin.hold(None, json.len());
            body(pin, stream::iter([Bytes::from(json)]))
        }
        Err(error) => {
            ApiError::from(super::error::RequestError::InvalidBody(error)).into_response()
        }
    }
}

/// `202 Accepted`, with the place where the client finds what it has asked for.
pub fn accepted(place: String, body: &impl Serialize) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    // Ids are UUIDs.
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn respond(
    service: &Service,
    peer: &Peer,
    execution: Arc<Execution>,
    parts: Vec<Part>,
) -> Response {
    let pin = service.pins().pin(peer.closer());
    pin.hold(Some(&execution), 0);
    let position = (execution, parts.into_iter(), None);
    let pieces = stream::unfold(position, |(execution, mut parts, current)| async move {
        let (part, at) = match current {
            Some(current) => current,
            None => (parts.next()?, 0),
        };
        let (piece, next) = part.piece(&execution, at);
        let current = next.map(|at| (part, at));
        Some((piece, (execution, parts, current)))
    });
    body(pin, pieces)
}

fn body(pin: Pin, pieces: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures_util::StreamExt;
    let pieces = pieces.map(move |piece| {
        pin.taken();
        Ok::<_, Infallible>(piece)
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
    CompileStdout,
    CompileStderr,
}

impl Stream {
    const ALL: [Stream; 4] = [
        Stream::Stdout,
        Stream::Stderr,
        Stream::CompileStdout,
        Stream::CompileStderr,
    ];

    fn of(self, execution: &Execution) -> &Data {
        const NONE: &Data = &Data(Vec::new());
        let compile = execution.compile.as_ref();
        match self {
            Stream::Stdout => &execution.stdout,
            Stream::Stderr => &execution.stderr,
            Stream::CompileStdout => compile.map_or(NONE, |compile| &compile.stdout),
            Stream::CompileStderr => compile.map_or(NONE, |compile| &compile.stderr),
        }
    }
}

/// How the bytes of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A part of a JSON string.
    Text,
    /// Likewise, invalid UTF-8 replaced by U+FFFD.
    Lossy,
    /// The object with the key `base64`.
    Base64,
}

/// A part of a response.
#[derive(Debug)]
enum Part {
    Json(Bytes),
    Output(Stream, Form),
}

impl Part {
    /// The next piece from position `at` of the stream, and the position after it; `None` at the end.
    fn piece(&self, execution: &Execution, at: usize) -> (Bytes, Option<usize>) {
        let (stream, form) = match self {
            Part::Json(json) => return (json.clone(), None),
            Part::Output(stream, form) => (stream, form),
        };
        let bytes = &stream.of(execution).0;
        let mut end = bytes.len().min(at + PIECE);
        if *form != Form::Base64 {
            end = before_sequence(bytes, at, end);
        }
        let piece = &bytes[at..end];
        let encoded = match form {
            Form::Base64 => STANDARD.encode(piece),
            Form::Text | Form::Lossy => escaped(&String::from_utf8_lossy(piece)),
        };
        (encoded.into(), (end < bytes.len()).then_some(end))
    }
}

/// The end of a piece that splits no UTF-8 sequence: `end`, or the start of the sequence around it.
fn before_sequence(bytes: &[u8], start: usize, end: usize) -> usize {
    if end == bytes.len() {
        return end;
    }
    let is_start = |at: &usize| bytes[*at] & 0xc0 != 0x80;
    // A sequence has at most four bytes.
    let candidates = (end - 3..=end).rev().find(is_start);
    candidates.filter(|at| *at > start).unwrap_or(end)
}

/// The content of a JSON string.
fn escaped(text: &str) -> String {
    let mut json = serde_json::to_string(text).unwrap_or_default();
    json.pop();
    if !json.is_empty() {
        json.remove(0);
    }
    json
}

/// Placeholders for the streams. No output can have them in it, because they are random and younger.
struct Marks(String);

impl Marks {
    fn new() -> Self {
        Marks(uuid::Uuid::new_v4().simple().to_string())
    }

    fn name(&self, stream: Stream) -> String {
        format!("{}-{}", self.0, stream as usize)
    }

    fn text(&self, stream: Stream) -> Data {
        self.name(stream).into()
    }

    /// The JSON of `value`, split at the placeholders.
    fn parts(
        &self,
        value: &impl Serialize,
        form: impl Fn(Stream) -> Form,
    ) -> Result<Vec<Part>, ApiError> {
        let json = serde_json::to_string(value).map_err(super::error::RequestError::from)?;
        let mut found: Vec<_> = Stream::ALL
            .into_iter()
            .filter_map(|stream| Some((json.find(&self.name(stream))?, stream)))
            .collect();
        found.sort_unstable_by_key(|(at, _)| *at);
        let mut parts = Vec::new();
        let mut from = 0;
        let mut text = String::new();
        for (at, stream) in found {
            let after = at + self.name(stream).len();
            let form = form(stream);
            text.push_str(&json[from..at]);
            from = after;
            if form == Form::Base64 {
                // The object replaces the quotes of the placeholder.
                text.pop();
                text.push_str("{\"base64\":\"");
                parts.push(Part::Json(std::mem::take(&mut text).into()));
                parts.push(Part::Output(stream, form));
                text.push_str("\"}");
                from += 1;
            } else {
                parts.push(Part::Json(std::mem::take(&mut text).into()));
                parts.push(Part::Output(stream, form));
            }
        }
        text.push_str(&json[from..]);
        parts.push(Part::Json(text.into()));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(stdout: Vec<u8>) -> Execution {
        let mut execution: Execution = serde_json::from_value(serde_json::json!({
            "id": "a", "language": "c", "status": "done", "cause": "exit", "exit_code": 0, "signal": null,
            "stdout": "", "stderr": "", "start": "cold",
            "timings": {"queue_us": 0, "start_us": 0, "compile_us": 0, "run_us": 0, "total_us": 0},
        }))
        .unwrap();
        execution.stdout = stdout.into();
        execution
    }

    fn pieces(execution: &Execution, parts: &[Part]) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        for part in parts {
            let mut at = Some(0);
            while let Some(position) = at {
                let (piece, next) = part.piece(execution, position);
                pieces.push(piece);
                at = next;
            }
        }
        pieces
    }

    /// Bytes in which all kinds of valid and invalid UTF-8 sequences meet the ends of pieces.
    fn mixed() -> Vec<u8> {
        let alphabet = [
            b'a', b'"', 1, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0xff,
        ];
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            alphabet[(state >> 16) as usize % alphabet.len()]
        };
        (0..20 * PIECE).map(|_| next()).collect()
    }

    #[test]
    fn pieces_of_a_lossy_text_are_the_whole_text() {
        let execution = execution(mixed());
        let marks = Marks::new();
        let shown = serde_json::json!({"stdout": marks.name(Stream::Stdout)});

        let parts = marks.parts(&shown, |_| Form::Lossy).unwrap();

        let json = pieces(&execution, &parts).concat();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let expected = String::from_utf8_lossy(&execution.stdout.0);
        assert!(value["stdout"] == *expected);
    }

    #[test]
    fn pieces_of_a_text_split_no_character() {
        let execution = execution("aé€😀".repeat(100_000).into_bytes());
        let part = Part::Output(Stream::Stdout, Form::Text);

        let pieces = pieces(&execution, &[part]);

        assert!(pieces.len() > 10);
        assert!(
            pieces
                .iter()
                .all(|piece| std::str::from_utf8(piece).is_ok())
        );
        assert!(pieces.concat() == execution.stdout.0);
    }

    #[test]
    fn pieces_of_base64_are_the_whole_base64() {
        let execution = execution(vec![0xff; PIECE + 1]);
        let marks = Marks::new();
        let shown = serde_json::json!({"stdout": marks.name(Stream::Stdout), "z": "\"}"});

        let parts = marks.parts(&shown, |_| Form::Base64).unwrap();

        let json = pieces(&execution, &parts).concat();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let read: Data = serde_json::from_value(value["stdout"].clone()).unwrap();
        assert!(read == execution.stdout);
        assert_eq!(value["z"], "\"}");
    }
}
