//! Headers and answers of the pages for browsers: `/`, `/playground/…` and `/docs`. Their files are part of this binary.

use std::io::{self, Read};
use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use flate2::Compression;
use flate2::read::GzEncoder;
use sha2::{Digest, Sha256};

use super::negotiate;

/// Headers of every page and of its files. Only scripts and requests of this server are allowed, and no frame may show the
/// page.
const HEADERS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// The content security policy of a page (CSP Level 3).
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// No markup from strings, no inline style, and pictures from memory.
    Strict,
    /// For Swagger UI, which makes inline styles and markup from strings.
    Swagger,
}

impl Policy {
    fn text(self) -> &'static str {
        match self {
            Policy::Strict => {
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                 connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                 require-trusted-types-for 'script'; trusted-types 'none'"
            }
            Policy::Swagger => {
                "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                 connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            }
        }
    }

    /// Adds the headers of a page.
    pub fn protect(self, response: &mut Response) {
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let policy = HeaderValue::from_static(self.text());
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
}

/// A file of a page.
#[derive(Debug)]
pub struct PageFile {
    /// Its path below `/playground/`.
    pub path: &'static str,
    media_type: &'static str,
    content: &'static [u8],
    /// Made at the first request.
    encoded: OnceLock<Encoded>,
}

#[derive(Debug)]
struct Encoded {
    /// A quoted hash of the content (RFC 9110, 8.8.3).
    tag: HeaderValue,
    /// With `Content-Encoding: gzip`.
    gzip: Bytes,
}

impl PageFile {
    /// A file. `media_type`: the value of `Content-Type`.
    pub const fn new(path: &'static str, media_type: &'static str, content: &'static [u8]) -> Self {
        PageFile {
            path,
            media_type,
            content,
            encoded: OnceLock::new(),
        }
    }

    fn encoded(&self) -> Result<&Encoded, io::Error> {
        if let Some(encoded) = self.encoded.get() {
            return Ok(encoded);
        }
        let hash = Sha256::digest(self.content);
        let tag = format!("\"{}\"", const_hex::encode(&hash[..12]));
        let mut gzip = Vec::new();
        GzEncoder::new(self.content, Compression::best()).read_to_end(&mut gzip)?;
        let tag = HeaderValue::try_from(tag).map_err(io::Error::other)?;
        Ok(self.encoded.get_or_init(|| Encoded {
            tag,
            gzip: gzip.into(),
        }))
    }

    /// The file, or 304 for a client that has it.
    pub fn respond(&self, request: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        Policy::Strict.protect(&mut response);
        let headers = response.headers_mut();
        // A browser asks each time whether its copy is the same, so that an update of the server is seen at once.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        let Ok(encoded) = self.encoded() else {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        };
        headers.insert(ETAG, encoded.tag.clone());
        let known = request.get_all(IF_NONE_MATCH).iter();
        let tag = encoded.tag.as_bytes();
        if known
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|item| {
                // Proxies that compress make the tag weak.
                let item = item.trim_ascii();
                item == b"*" || item.strip_prefix(b"W/").unwrap_or(item) == tag
            })
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        let is_gzip = negotiate::quality(request, ACCEPT_ENCODING.as_str(), "gzip") > 0.0;
        let body = match is_gzip {
            true => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                encoded.gzip.clone()
            }
            false => Bytes::from_static(self.content),
        };
        *response.body_mut() = body.into();
        response
    }
}

/// True if the client names HTML among the types that it takes, and prefers it to JSON: browsers do. `*/*`, which curl and
/// libraries send, does not count.
pub fn prefers_html(request: &HeaderMap) -> bool {
    let quality = |media_type| negotiate::quality(request, ACCEPT.as_str(), media_type);
    let html = quality("text/html");
    html > 0.0 && html >= quality("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_names_html_prefers_it() {
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, is_html) in [
            (Some(chromium), true),
            (Some("text/html"), true),
            (Some("TEXT/HTML; charset=utf-8"), true),
            (Some("*/*"), false),
            (Some("text/*"), false),
            (Some("application/json"), false),
            (Some("application/json, text/html;q=0.9"), false),
            (Some("text/html;q=0, */*"), false),
            (Some("text/html;q=x"), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(prefers_html(&headers), is_html, "{accept:?}");
        }
    }
}
