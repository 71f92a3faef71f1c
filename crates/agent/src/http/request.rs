//! Reads one request: the head with bounds on bytes, fields and time, then the body.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::connection::Connection;

/// Bytes of request line and header fields.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Number of header fields.
const MAX_HEADERS: usize = 64;

/// From the first byte of a request to the end of its head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection may be without a request.
pub const IDLE_TIME: Duration = Duration::from_secs(300);

/// From the end of the head to the end of the body.
const BODY_TIME: Duration = Duration::from_secs(120);

/// The head of a request.
#[derive(Debug, Default)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The value of `Authorization`.
    pub authorization: Option<Vec<u8>>,
    /// False after `Connection: close`.
    pub keep_alive: bool,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// `Transfer-Encoding` was sent.
    pub transfer_encoding: bool,
}

/// No request could be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RequestError {
    /// The connection ended or was idle: no answer is sent.
    #[error("the connection ended")]
    Closed,
    /// Not a well-formed HTTP/1.1 head.
    #[error("malformed HTTP/1.1 request: {0}")]
    Malformed(String),
    /// More than [`MAX_HEAD_BYTES`] or `MAX_HEADERS` header fields.
    #[error("the request head has more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} fields")]
    HeadTooLarge,
    /// The head was not complete in time.
    #[error("the request head was not complete after {} s", HEAD_TIME.as_secs())]
    Timeout,
}

impl Request {
    /// Reads a head; bytes after it stay in the connection's buffer. Waits at most `idle` for the first byte.
    pub fn read(connection: &mut Connection, idle: Duration) -> Result<Request, RequestError> {
        let mut buffer = std::mem::take(&mut connection.buffer);
        let mut deadline = None;
        if !buffer.is_empty() {
            deadline = Some(Instant::now() + HEAD_TIME);
        }
        loop {
            if let Some((request, length)) = parse(&buffer)? {
                buffer.drain(..length);
                connection.buffer = buffer;
                return Ok(request);
            }
            if buffer.len() >= MAX_HEAD_BYTES {
                return Err(RequestError::HeadTooLarge);
            }
            let until = deadline.unwrap_or_else(|| Instant::now() + idle);
            let max = (MAX_HEAD_BYTES - buffer.len()).min(4096);
            match connection.read(&mut buffer, max, until) {
                Ok(0) => return Err(RequestError::Closed),
                Ok(_) => {
                    deadline.get_or_insert_with(|| Instant::now() + HEAD_TIME);
                }
                Err(error) if error.kind() == ErrorKind::TimedOut && deadline.is_some() => {
                    return Err(RequestError::Timeout);
                }
                Err(_) => return Err(RequestError::Closed),
            }
        }
    }
}

/// The request and the length of its head; none while the head is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::HeadTooLarge),
        Err(error) => return Err(RequestError::Malformed(error.to_string())),
    };
    if parsed.version != Some(1) {
        return Err(RequestError::Malformed(
            "the version is not HTTP/1.1".into(),
        ));
    }
    let target = parsed.path.unwrap_or_default();
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        keep_alive: true,
        ..Request::default()
    };
    for header in parsed.headers.iter() {
        take_header(&mut request, header.name, header.value)?;
    }
    Ok(Some((request, length)))
}

fn take_header(request: &mut Request, name: &str, value: &[u8]) -> Result<(), RequestError> {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    let value_lower = String::from_utf8_lossy(value).trim().to_ascii_lowercase();
    if is("authorization") {
        request.authorization = Some(value.to_vec());
    } else if is("connection") {
        request.keep_alive &= !has_item(&value_lower, "close");
    } else if is("transfer-encoding") {
        request.transfer_encoding = true;
    } else if is("content-length") {
        let digits =
            !value_lower.is_empty() && value_lower.bytes().all(|byte| byte.is_ascii_digit());
        let length = digits.then(|| value_lower.parse().ok()).flatten();
        // Two different lengths are a request smuggling attack (RFC 9112, section 11.2).
        if length.is_none()
            || request
                .content_length
                .is_some_and(|earlier| Some(earlier) != length)
        {
            return Err(RequestError::Malformed(format!(
                "invalid Content-Length {value_lower:?}"
            )));
        }
        request.content_length = length;
    }
    Ok(())
}

/// True if a comma-separated list contains `wanted`.
fn has_item(list: &str, wanted: &str) -> bool {
    list.split(',').any(|item| item.trim() == wanted)
}

/// Reads a body of `length` bytes. The caller has checked the length.
pub fn read_body(connection: &mut Connection, length: usize) -> Result<Vec<u8>, RequestError> {
    let deadline = Instant::now() + BODY_TIME;
    let mut body = std::mem::take(&mut connection.buffer);
    if body.len() > length {
        connection.buffer = body.split_off(length);
    }
    while body.len() < length {
        let max = (length - body.len()).min(256 * 1024);
        match connection.read(&mut body, max, deadline) {
            Ok(0) | Err(_) => return Err(RequestError::Closed),
            Ok(_) => {}
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Request, usize)>, RequestError> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_head_is_parsed_once_complete() {
        let text = "POST /execute?x=1 HTTP/1.1\r\nAuthorization: Bearer t\r\ncontent-length: 5\r\n\
                    Connection: Keep-Alive, Close\r\n\r\nhello";
        assert!(head(&text[..text.len() - 7]).unwrap().is_none());
        let (request, length) = head(text).unwrap().unwrap();
        assert_eq!(&text[length..], "hello");
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/execute")
        );
        assert_eq!(request.authorization.as_deref(), Some(&b"Bearer t"[..]));
        assert_eq!(request.content_length, Some(5));
        assert!(!request.keep_alive);
    }

    #[test]
    fn malformed_or_different_lengths_are_refused() {
        for lengths in ["x", "-1", "+1", "1, 1", "", "99999999999999999999"] {
            let text = format!("GET / HTTP/1.1\r\nContent-Length: {lengths}\r\n\r\n");
            assert!(
                matches!(head(&text), Err(RequestError::Malformed(_))),
                "{lengths}"
            );
        }
        let two = "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert!(matches!(head(two), Err(RequestError::Malformed(_))));
    }

    #[test]
    fn other_protocols_are_refused() {
        for text in [
            "GET / HTTP/1.0\r\n\r\n",
            "\x16\x03\x01\x02",
            "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        ] {
            assert!(
                matches!(head(text), Err(RequestError::Malformed(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(head(&text).unwrap_err(), RequestError::HeadTooLarge);
    }
}
