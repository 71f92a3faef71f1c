//! Headers with which a client chooses the form of the response.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use cloude_protocol::agent::NDJSON;

use super::error::RequestError;

/// The media type of server-sent events (WHATWG HTML, 9.2).
pub const EVENT_STREAM: &str = "text/event-stream";
/// `Prefer` (RFC 7240).
const PREFER: &str = "prefer";
/// The preference of RFC 7240, 4.1.
pub const RESPOND_ASYNC: &str = "respond-async";
/// Longest key of a request.
const MAX_KEY: usize = 255;

/// The form of a stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One event per line.
    Ndjson,
    /// Server-sent events.
    Sse,
}

impl Form {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Form::Ndjson => NDJSON,
            Form::Sse => EVENT_STREAM,
        }
    }
}

/// The items of a header that is a list, without their parameters.
fn items<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| Some(item.split(';').next()?.trim()))
}

/// The weight of an item that a header names, 0 to 1 (RFC 9110, 12.4.2); 0 if it does not. Wildcards do not count.
pub fn quality(headers: &HeaderMap, header: &'static str, item: &str) -> f32 {
    let values = headers.get_all(header).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let weights = texts.flat_map(|text| text.split(',')).filter_map(|text| {
        let mut parts = text.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(item) {
            return None;
        }
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |text| text.parse().unwrap_or(0.0));
        Some(f32::clamp(weight, 0.0, 1.0))
    });
    weights.fold(0.0, f32::max)
}

/// The form of a stream that `Accept` names, if it names one.
pub fn accepted_form(headers: &HeaderMap) -> Option<Form> {
    items(headers, ACCEPT.as_str()).find_map(|range| {
        let forms = [Form::Ndjson, Form::Sse].into_iter();
        forms
            .into_iter()
            .find(|form| range.eq_ignore_ascii_case(form.media_type()))
    })
}

/// True with `Prefer: respond-async`.
pub fn prefers_async(headers: &HeaderMap) -> bool {
    items(headers, PREFER).any(|item| item.eq_ignore_ascii_case(RESPOND_ASYNC))
}

/// The value of `Idempotency-Key`.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, RequestError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (value, None) = (values.next(), values.next()) else {
        return Err(RequestError::IdempotencyKey);
    };
    let Some(value) = value else { return Ok(None) };
    let key = value.to_str().map_err(|_| RequestError::IdempotencyKey)?;
    let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    match is_visible && (1..=MAX_KEY).contains(&key.len()) {
        true => Ok(Some(key)),
        false => Err(RequestError::IdempotencyKey),
    }
}
