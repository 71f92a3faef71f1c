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
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::peer::{Peer, WatchedStream};

/// Maximum connections. Further ones wait in the backlog of listen(2).
const CONNECTIONS: usize = 4096;
/// Time-out for the headers of a request.
const HEADERS: Duration = Duration::from_secs(15);
/// Delay after a failed accept(2), which fails repeatedly while no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`, then lets open requests finish until `abort`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                connection(stream, slot, router.clone(), &graceful, abort.clone())
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = abort.cancelled() => {}
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

fn connection(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    graceful: &GracefulShutdown,
    abort: CancellationToken,
) {
    // Small events are sent at once.
    let _ = stream.set_nodelay(true);
    let peer = match Peer::of(&stream) {
        Ok(peer) => Arc::new(peer),
        Err(error) => {
            return tracing::debug!(%error, "the connection ended before its first request");
        }
    };
    let answering = Arc::clone(&peer);
    let service =
        service_fn(move |request| answer(request, router.clone(), Arc::clone(&answering)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        // By default hyper drops a request after a FIN. `reset` below ends it only if the client is gone.
        .half_close(true)
        .serve_connection(
            TokioIo::new(WatchedStream::new(stream, Arc::clone(&peer))),
            service,
        );
    let served = graceful.watch(served);
    tokio::spawn(async move {
        tokio::select! {
            result = served => if let Err(error) = result {
                tracing::debug!(%error, "the connection failed");
            },
            () = peer.reset() => tracing::debug!("the client closed the connection"),
            () = abort.cancelled() => {}
        }
        drop(slot);
    });
}

async fn answer(
    mut request: Request<Incoming>,
    router: Router,
    peer: Arc<Peer>,
) -> Result<Response, Infallible> {
    // HTTP/1.0 has no interim responses (RFC 9110, 15.2). There, only keep-alive detects a closed connection.
    let may_probe = request.version() == Version::HTTP_11;
    request.extensions_mut().insert(Arc::clone(&peer));
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
