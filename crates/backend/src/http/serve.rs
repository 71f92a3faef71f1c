//! The accept loop: a bounded number of connections, each with a limit on how long its headers take. A request
//! whose client closes the connection is dropped; one whose client closes its sending half is answered.

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

use super::peer::{Peer, Watched};

/// At once; further ones wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// A client that sends its headers slower holds a connection for nothing.
const HEADERS: Duration = Duration::from_secs(15);
/// When there are no descriptors left, accepting fails at once again.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then lets requests that are under way finish until `abort`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                connection(stream, place, router.clone(), &graceful, abort.clone())
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
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
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    router: Router,
    graceful: &GracefulShutdown,
    abort: CancellationToken,
) {
    // Small events must not wait for larger ones.
    let _ = stream.set_nodelay(true);
    let peer = match Peer::of(&stream) {
        Ok(peer) => Arc::new(peer),
        Err(error) => return tracing::debug!(%error, "a connection that ended at once"),
    };
    let answering = Arc::clone(&peer);
    let service =
        service_fn(move |request| answer(request, router.clone(), Arc::clone(&answering)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        // hyper drops a request whose client sends no more; we, only one whose client is gone.
        .half_close(true)
        .serve_connection(
            TokioIo::new(Watched::new(stream, Arc::clone(&peer))),
            service,
        );
    let served = graceful.watch(served);
    tokio::spawn(async move {
        tokio::select! {
            result = served => if let Err(error) = result {
                tracing::debug!(%error, "a connection");
            },
            () = peer.reset() => tracing::debug!("a client closed its connection"),
            () = abort.cancelled() => {}
        }
        drop(place);
    });
}

async fn answer(
    mut request: Request<Incoming>,
    router: Router,
    peer: Arc<Peer>,
) -> Result<Response, Infallible> {
    // An HTTP/1.0 client knows no interim responses (RFC 9110, 15.2): keep-alive finds out that it is gone.
    let may_probe = request.version() == Version::HTTP_11;
    request.extensions_mut().insert(Arc::clone(&peer));
    let answer = router.oneshot(request);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = peer.sends_no_more() => {}
    }
    if may_probe {
        peer.probe();
    }
    answer.await
}
