//! API keys in the headers of other servers' clients, as `Authorization: Bearer KEY`.

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{self, Next};
use axum::routing::MethodRouter;
use cloude_protocol::keys::Scope;

use crate::http::auth;
use crate::jobs::Service;

/// Finds the key in the headers of a dialect.
type Find = fn(&HeaderMap) -> Option<&str>;

/// Requires `scope` for the methods of a route, as [`auth::require`]. A key that `find` finds counts as the bearer token.
pub fn require(
    service: &Service,
    scope: Scope,
    find: Find,
    methods: MethodRouter<Service>,
) -> MethodRouter<Service> {
    let methods = auth::require(service, scope, methods);
    methods.route_layer(middleware::from_fn(
        move |mut request: Request, next: Next| async move {
            let key = find(request.headers());
            let bearer = key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
            if let Some(Ok(mut bearer)) = bearer {
                bearer.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
            next.run(request).await
        },
    ))
}

/// `Authorization: KEY`, without the word `Bearer`.
pub fn bare(headers: &HeaderMap) -> Option<&str> {
    let key = headers.get(AUTHORIZATION)?.to_str().ok()?;
    (!key.is_empty() && !key.contains(' ')).then_some(key)
}

/// `X-Auth-Token: KEY`, or else `X-Auth-User: KEY`; none beside `Authorization`.
pub fn x_auth(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(AUTHORIZATION) {
        return None;
    }
    let named = ["x-auth-token", "x-auth-user"].into_iter();
    let mut values = named.filter_map(|name| headers.get(name)?.to_str().ok());
    values.find(|value| !value.is_empty())
}
