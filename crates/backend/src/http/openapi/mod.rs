//! The OpenAPI document, and a page to read and try it. Neither needs a key.

mod paths;

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::page::Policy;

/// Path of the document.
const DOCUMENT: &str = "/openapi.json";
/// Path of the page.
const PAGE: &str = "/docs";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cloude",
        description = "Runs programs, each in a fresh micro-VM.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "executions", description = "Programs and their results"),
        (name = "server", description = "The server"),
        (name = "templates", description = "VMs that are booted once and forked for each execution"),
        (name = "keys", description = "API keys; they need the scope `admin`"),
    ),
    paths(
        paths::create_execution,
        paths::list_executions,
        paths::read_execution,
        paths::cancel_execution,
        paths::read_events,
        paths::attach,
        paths::read_stdout,
        paths::read_stderr,
        paths::list_artifacts,
        paths::read_artifact,
        paths::create_batch,
        paths::read_batch,
        paths::list_languages,
        paths::read_language,
        paths::read_health,
        paths::read_ready,
        paths::read_usage,
        paths::read_installation,
        paths::list_templates,
        paths::build_template,
        paths::remove_template,
        paths::list_keys,
        paths::create_key,
        paths::revoke_key,
    ),
    modifiers(&Keys),
)]
struct Document;

/// API keys, which a server on a loopback address or a Unix socket may not need.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", scheme);
        let key = SecurityRequirement::new("key", [] as [&str; 0]);
        document.security = Some(vec![key, SecurityRequirement::default()]);
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The routes of the document and of the page, whose scripts are part of this binary.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = SwaggerUi::new(PAGE).url(DOCUMENT, document());
    Router::from(page)
        .layer(map_response(|mut response: Response| async {
            Policy::Swagger.protect(&mut response);
            response
        }))
        .with_state(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Paths outside of `/v1` that are no part of the API, or not of this document.
    const OTHERS: [&str; 5] = ["/", "/health", "/run", "/status/{id}", "/metrics"];

    #[test]
    fn the_document_has_every_route() {
        let source = include_str!("../mod.rs");
        let text: String = source.split_whitespace().collect();
        let routes: BTreeSet<&str> = text
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|path| !OTHERS.contains(path))
            .collect();

        let document = document();
        // axum writes a path of several components as `{*path}`.
        let documented: BTreeSet<String> = document
            .paths
            .paths
            .keys()
            .map(|path| path.replace("{path}", "{*path}"))
            .collect();

        assert_eq!(
            routes,
            documented
                .iter()
                .map(String::as_str)
                .collect::<BTreeSet<_>>()
        );
    }
}
