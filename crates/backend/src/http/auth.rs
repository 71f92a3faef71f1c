//! Authenticates requests by their API key, and checks the key's scope.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::MethodRouter;
use cloude_protocol::keys::Scope;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};

use super::error::{ApiError, RequestError};
use crate::config::KeyPolicy;
use crate::jobs::Service;
use crate::keys::{Caller, Key, Rejected};

/// Requires `scope` for the methods of a route.
pub fn require(
    service: &Service,
    scope: Scope,
    methods: MethodRouter<Service>,
) -> MethodRouter<Service> {
    let gate = Gate {
        service: service.clone(),
        policy: service.config().key_policy(),
        scope,
    };
    methods.route_layer(middleware::from_fn_with_state(gate, authorize))
}

#[derive(Clone)]
struct Gate {
    service: Service,
    policy: KeyPolicy,
    scope: Scope,
}

async fn authorize(
    State(gate): State<Gate>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = gate.key(request.headers())? else {
        request.extensions_mut().insert(Caller::local());
        return Ok(next.run(request).await);
    };
    request
        .extensions_mut()
        .insert(Caller::of(Arc::clone(&key)));
    let response = tokio::select! {
        // Drops the handler, as if the client had closed the connection.
        rejected = key.ended() => return Err(RequestError::from(rejected).into()),
        response = next.run(request) => response,
    };
    Ok(response.map(|body| {
        let ended = async move { key.ended().await }.boxed();
        Body::new(WhileValid { body, ended })
    }))
}

impl Gate {
    /// The key of a request; `None` if it needs none.
    fn key(&self, headers: &HeaderMap) -> Result<Option<Arc<Key>>, RequestError> {
        if self.policy == KeyPolicy::Ignored {
            return Ok(None);
        }
        let text = match (bearer(headers)?, self.policy) {
            (Some(text), _) => text,
            (None, KeyPolicy::Required) => return Err(RequestError::NoKey),
            (None, _) => return Ok(None),
        };
        let key = self.service.keys().authenticate(text)?;
        match key.has(self.scope) {
            true => Ok(Some(key)),
            false => Err(RequestError::Scope {
                id: key.id().to_owned(),
                scope: self.scope,
            }),
        }
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750); `None` without the header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, RequestError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(AUTHORIZATION) {
            true => Err(Rejected::Unknown.into()),
            false => Ok(None),
        };
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Rejected::Unknown.into()),
    }
}

/// A response body that fails when the key ends. The client sees an incomplete response.
struct WhileValid {
    body: Body,
    ended: BoxFuture<'static, Rejected>,
}

impl HttpBody for WhileValid {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if self.ended.poll_unpin(context).is_ready() {
            let error = io::Error::other("the API key of this request was revoked or has expired");
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
