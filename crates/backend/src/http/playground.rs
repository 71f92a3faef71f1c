//! The playground: a page that runs programs in a browser. Its files are in `crates/backend/playground`, and this binary
//! has them. The page needs no key; the API that it calls does.

use axum::Router;
use axum::http::header::VARY;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::{ApiError, RequestError};
use super::extract::ApiPath;
use super::original;
use super::page::{PageFile, prefers_html};

/// The path of the page's files.
const FILES_AT: &str = "/playground/{*path}";

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// The name and the content of a file of the page.
macro_rules! file {
    ($path:literal, $type:expr) => {
        PageFile::new(
            $path,
            $type,
            include_bytes!(concat!("../../playground/", $path)),
        )
    };
}

static PAGE: PageFile = file!("index.html", HTML);
static FILES: [PageFile; 20] = [
    file!("ansi.js", JS),
    file!("api.js", JS),
    file!("artifacts.js", JS),
    file!("dom.js", JS),
    file!("drafts.js", JS),
    file!("editor.js", JS),
    file!("files.js", JS),
    file!("icon.svg", SVG),
    file!("key.js", JS),
    file!("languages.js", JS),
    file!("link.js", JS),
    file!("main.js", JS),
    file!("output.js", JS),
    file!("program.js", JS),
    file!("result.js", JS),
    file!("style.css", CSS),
    file!("theme.js", JS),
    file!("timings.js", JS),
    file!("vendor/codemirror.LICENSE", TEXT),
    file!("vendor/codemirror.js", JS),
];

/// `GET /`: the page for browsers, and for other clients the answer of the first Cloude.
pub async fn root(headers: HeaderMap) -> Response {
    if prefers_html(&headers) {
        return PAGE.respond(&headers);
    }
    let mut response = original::root().await.into_response();
    // Caches must not give one of the two to all clients.
    let vary = HeaderValue::from_static("accept, accept-encoding");
    response.headers_mut().insert(VARY, vary);
    response
}

/// The routes of the page's files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route(FILES_AT, get(file))
}

async fn file(ApiPath(path): ApiPath<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    match FILES.iter().find(|file| file.path == path) {
        Some(file) => Ok(file.respond(&headers)),
        None => Err(RequestError::NoEndpoint.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::*;

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/playground"))
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let mut found = BTreeSet::new();
        for (below, folder) in [
            ("", folder().to_owned()),
            ("vendor/", folder().join("vendor")),
        ] {
            let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            found.extend(files.map(|file| format!("{below}{}", file.file_name().display())));
        }
        assert!(found.remove(PAGE.path));
        let served: BTreeSet<_> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(found, served);
    }

    #[test]
    fn the_editor_was_built_from_its_sources() {
        let sources = folder().join("../../../tools/playground");
        let mut hash = Sha256::new();
        for name in ["codemirror.js", "package.json", "package-lock.json"] {
            hash.update(fs::read(sources.join(name)).unwrap());
        }
        let digest = const_hex::encode(hash.finalize());
        let editor = fs::read_to_string(folder().join("vendor/codemirror.js")).unwrap();
        let first = editor.lines().next().unwrap();
        assert!(
            first.contains(&digest),
            "run tools/playground/build: {first}"
        );
    }

    #[test]
    fn the_page_names_nothing_elsewhere() {
        let page = fs::read_to_string(folder().join(PAGE.path)).unwrap();
        for (at, _) in page
            .match_indices("src=\"")
            .chain(page.match_indices("href=\""))
        {
            let target = page[at..].split('"').nth(1).unwrap();
            let is_own = target.starts_with('/') && !target.starts_with("//");
            assert!(is_own || target.starts_with('#'), "{target}");
        }
    }
}
