//! The accept loop: a limited number of connections, and a time-out for request headers. A request is dropped when its
//! client closes the connection, but answered when the client closes only its sending half.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::addresses::{AddressSlot, Addresses};
use super::listener::Listener;
use super::peer::{Peer, WatchedStream};
use super::transport::Transport;
use super::upgrade::Held;
use crate::bounds::Bounds;
use crate::config::Limits;

/// Maximum connections. Further ones wait in the backlog of listen(2).
const CONNECTIONS: usize = 4096;
/// Time-out for the headers of a request.
const HEADERS: Duration = Duration::from_secs(15);
/// Delay after a failed accept(2), which fails repeatedly while no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// The error of a connection beyond the limit of its address.
const TOO_MANY: &str = "too many connections from this address (`limits.connections_per_address`); close some and try \
again";

/// The limits of connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    addresses: Arc<Addresses>,
    write_timeout: Duration,
    bounds: Bounds,
}

impl ConnectionLimits {
    /// The limits of the configuration.
    pub fn new(limits: &Limits, bounds: Bounds) -> Self {
        ConnectionLimits {
            addresses: Arc::new(Addresses::new(limits.connections_per_address)),
            write_timeout: Duration::from_millis(limits.write_timeout_ms),
            bounds,
        }
    }
}

/// Accepts connections until `stop`, then lets open requests finish until `abort`.
pub async fn serve(
    listener: impl Into<Listener>,
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let listener = listener.into();
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let address = match stream.tcp() {
                    Some(stream) => match enter(stream, &limits) {
                        Some(slot) => Some(slot),
                        None => continue,
                    },
                    // The mode of a Unix socket limits who connects.
                    None => None,
                };
                let slots = (slot, address, limits.bounds.connection());
                let held = Held::new(slots, connections.token(), abort.clone());
                connection(stream, held, &limits, router.clone(), stop.clone());
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = abort.cancelled() => {}
    }
}

async fn accept(
    listener: &Listener,
    slots: &Arc<Semaphore>,
) -> io::Result<(Transport, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// The slot of the client's address. Without one, the client gets a 503 and the connection is closed.
fn enter(stream: &TcpStream, limits: &ConnectionLimits) -> Option<AddressSlot> {
    let address = stream.peer_addr().ok()?;
    let slot = limits.addresses.enter(address.ip());
    if slot.is_none() {
        limits.bounds.rejected("connections");
        let body = serde_json::json!({ "error": TOO_MANY }).to_string();
        let response = format!(
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // The send buffer of a new connection has room for it.
        let _ = stream.try_write(response.as_bytes());
    }
    slot
}

fn connection(
    stream: Transport,
    held: Held,
    limits: &ConnectionLimits,
    router: Router,
    stop: CancellationToken,
) {
    let peer = match Peer::of(&stream) {
        Ok(peer) => Arc::new(peer),
        Err(error) => {
            return tracing::debug!(%error, "the connection ended before its first request");
        }
    };
    let extensions = (Arc::clone(&peer), held.clone());
    let service = service_fn(move |request| answer(request, router.clone(), extensions.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        // By default hyper drops a request after a FIN. `reset` below ends it only if the client is gone.
        .half_close(true)
        .serve_connection(
            TokioIo::new(WatchedStream::new(
                stream,
                Arc::clone(&peer),
                limits.write_timeout,
                limits.bounds.clone(),
            )),
            service,
        )
        .with_upgrades();
    tokio::spawn(async move {
        let mut served = std::pin::pin!(served);
        let served = async {
            tokio::select! {
                served = served.as_mut() => return served,
                // The request that is open is answered.
                () = stop.cancelled() => served.as_mut().graceful_shutdown(),
            }
            served.await
        };
        tokio::select! {
            result = served => if let Err(error) = result {
                tracing::debug!(%error, "the connection failed");
            },
            () = peer.reset() => tracing::debug!("the client closed the connection"),
            () = peer.closed() => tracing::debug!("the response held too much memory"),
            () = held.aborted() => {}
        }
        // An upgraded connection still has its clone.
        drop(held);
    });
}

async fn answer(
    mut request: Request<Incoming>,
    router: Router,
    (peer, held): (Arc<Peer>, Held),
) -> Result<Response, Infallible> {
    // HTTP/1.0 has no interim responses (RFC 9110, 15.2). There, only keep-alive detects a closed connection.
    let may_probe = request.version() == Version::HTTP_11;
    request.extensions_mut().insert(Arc::clone(&peer));
    request.extensions_mut().insert(held);
    let answer = router.oneshot(request);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = peer.read_closed() => {}
    }
    if may_probe {
        peer.probe();
    }
    answer.await
}
