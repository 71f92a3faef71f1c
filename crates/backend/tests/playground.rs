//! The playground page: `GET /` of browsers, its files, and the page in a browser.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use cloude_backend::config::Auth;
use cloude_protocol::keys::Scope;
use support::{Answer, Backend, capacity};

/// Firefox's.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn ask(backend: &Backend, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    backend.send(method, path, headers, "").await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_browser_gets_the_page_and_others_the_original_answer() {
    let backend = Backend::start().await;
    let page = ask(&backend, "GET", "/", &[("accept", BROWSER)]).await;
    assert_eq!(page.status, 200);
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    assert!(page.body.starts_with(b"<!doctype html>"));

    for accept in [None, Some("*/*"), Some("application/json")] {
        let headers: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
        let original = ask(&backend, "GET", "/", &headers).await;
        assert_eq!(original.json()["service"], "clouded", "{accept:?}");
        assert_eq!(header(&original, "content-type"), "application/json");
    }
    for accept in [BROWSER, "*/*"] {
        let answer = ask(&backend, "GET", "/", &[("accept", accept)]).await;
        assert!(header(&answer, "vary").contains("accept"), "{accept}");
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_without_a_body() {
    let backend = Backend::start().await;
    for (path, accept) in [("/", BROWSER), ("/", "*/*"), ("/playground/main.js", "*/*")] {
        let accept = [("accept", accept)];
        let get = ask(&backend, "GET", path, &accept).await;
        let head = ask(&backend, "HEAD", path, &accept).await;
        assert_eq!(head.status, 200);
        assert!(head.body.is_empty());
        for name in ["content-type", "content-length", "etag", "vary"] {
            assert_eq!(header(&head, name), header(&get, name), "{path} {name}");
        }
    }
    let post = ask(&backend, "POST", "/", &[("accept", BROWSER)]).await;
    assert_eq!(post.status, 405);
}

#[tokio::test]
async fn pages_allow_only_this_server_and_no_frame() {
    let backend = Backend::start().await;
    for (path, is_strict) in [
        ("/", true),
        ("/playground/main.js", true),
        ("/docs/", false),
    ] {
        let answer = ask(&backend, "GET", path, &[("accept", BROWSER)]).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = header(&answer, "content-security-policy");
        let directives: Vec<_> = policy.split("; ").collect();
        for needed in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(directives.contains(&needed), "{path}: {policy}");
        }
        let is_inline = policy.contains("unsafe-inline");
        assert_eq!(is_strict, !is_inline, "{path}: {policy}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(&answer, "x-frame-options"), "DENY");
        assert_eq!(header(&answer, "referrer-policy"), "no-referrer");
        assert_eq!(header(&answer, "cross-origin-opener-policy"), "same-origin");
    }
}

#[tokio::test]
async fn a_file_is_compressed_for_those_who_can_read_it() {
    let backend = Backend::start().await;
    let path = "/playground/vendor/codemirror.js";
    let plain = ask(&backend, "GET", path, &[]).await;
    assert_eq!(
        header(&plain, "content-type"),
        "text/javascript; charset=utf-8"
    );
    assert_eq!(header(&plain, "content-encoding"), "");

    let gzip = ask(&backend, "GET", path, &[("accept-encoding", "br, gzip")]).await;
    assert_eq!(header(&gzip, "content-encoding"), "gzip");
    assert!(header(&gzip, "vary").contains("accept-encoding"));
    assert!(gzip.body.len() * 2 < plain.body.len());
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(&gzip.body[..]);
    std::io::Read::read_to_end(&mut reader, &mut unpacked).unwrap();
    assert!(unpacked == plain.body);

    let refused = ask(&backend, "GET", path, &[("accept-encoding", "gzip;q=0")]).await;
    assert_eq!(header(&refused, "content-encoding"), "");
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let backend = Backend::start().await;
    let path = "/playground/style.css";
    let first = ask(&backend, "GET", path, &[]).await;
    assert_eq!(header(&first, "cache-control"), "no-cache");
    let tag = header(&first, "etag");

    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"a\", {tag}")] {
        let again = ask(&backend, "GET", path, &[("if-none-match", &known)]).await;
        assert_eq!(again.status, 304, "{known}");
        assert!(again.body.is_empty());
        assert_eq!(header(&again, "etag"), tag);
    }
    let other = ask(&backend, "GET", path, &[("if-none-match", "\"a\"")]).await;
    assert_eq!(other.status, 200);
    assert_eq!(
        ask(&backend, "GET", "/playground/a.js", &[]).await.status,
        404
    );
}

#[tokio::test]
async fn the_page_needs_no_key_and_its_calls_do() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(2, 16), folder, |config| {
        config.api.auth = Auth::Required;
    })
    .await;
    let page = ask(&backend, "GET", "/", &[("accept", BROWSER)]).await;
    assert_eq!(page.status, 200);
    let script = ask(&backend, "GET", "/playground/main.js", &[]).await;
    assert_eq!(script.status, 200);
    for path in ["/v1/languages", "/v1/languages/python"] {
        assert_eq!(backend.get(path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_playground() {
    let backend = Backend::start().await;
    let foreign = [("accept", BROWSER), ("origin", "http://evil.example")];
    for path in ["/", "/playground/main.js", "/v1/languages/python"] {
        assert_eq!(
            ask(&backend, "GET", path, &foreign).await.status,
            403,
            "{path}"
        );
        let answer = ask(&backend, "GET", path, &[("accept", BROWSER)]).await;
        assert_eq!(header(&answer, "access-control-allow-origin"), "", "{path}");
    }
}

/// Installs the tools from npm, and shows each case. Needs Chromium.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium, Node.js and npm; run it with `--run-ignored all`"]
async fn the_page_works_in_a_browser() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let backend = Backend::with(capacity(8, 64), state, |_| {}).await;
    let state = Arc::new(tempfile::tempdir().unwrap());
    let locked = Backend::with(capacity(8, 64), state, |config| {
        config.api.auth = Auth::Required;
    })
    .await;
    let (key, _) = locked.key(&[Scope::Run, Scope::Read]).await;

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/tests/playground");
    let mut command = tokio::process::Command::new(script);
    command.args([&backend.url, "fake"]);
    command.env("CLOUDE_TEST_LOCKED", &locked.url);
    command.env("CLOUDE_TEST_KEY", key);
    assert!(command.status().await.unwrap().success());
}
