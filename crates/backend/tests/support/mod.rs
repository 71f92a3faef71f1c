//! A backend without VMs: the HTTP server of clouded over a fake launcher.

#![allow(dead_code)] // Each test binary uses a part of this.

pub mod attached;
pub mod fake_vm;
pub mod websocket;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cloude_backend::config::{Config, Listen};
use cloude_backend::http::{self, ConnectionLimits, Listener, TlsFiles};
use cloude_backend::jobs::{Parts, Service};
use cloude_backend::keys::Keys;
use cloude_backend::scheduler::{Capacity, Scheduler};
use cloude_backend::store::{Retention, Store};
use cloude_engine::languages::Languages;
use cloude_protocol::keys::{KeyRequest, Scope};
use fake_vm::{FakeImages, FakeLauncher, World};
use http_body_util::BodyExt;
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

pub fn languages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages")
}

pub struct Backend {
    pub url: String,
    pub service: Service,
    pub world: Arc<World>,
    pub state: Arc<tempfile::TempDir>,
    pub stop: CancellationToken,
}

pub fn capacity(vms: usize, queue: usize) -> Capacity {
    Capacity {
        vms,
        vcpus: 64,
        memory_mib: 8192,
        queue,
        queue_bytes: 256 << 20,
    }
}

impl Backend {
    pub async fn start() -> Self {
        Backend::with(
            capacity(2, 16),
            Arc::new(tempfile::tempdir().unwrap()),
            |_| {},
        )
        .await
    }

    pub async fn with(
        capacity: Capacity,
        state: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let world = Arc::new(World::default());
        let mut config = Config {
            state_dir: state.path().to_owned(),
            listen: Listen::Tcp(([127, 0, 0, 1], 0).into()),
            ..Config::default()
        };
        config.limits.body_bytes = 1 << 20;
        config.limits.code_bytes = 64 << 10;
        change(&mut config);
        let retention = Retention {
            age_ms: i64::MAX / 4,
            jobs: 1000,
            bytes: 1 << 30,
        };
        let quotas = (&config.quota).into();
        let mut listener = Listener::bind(&config.listen, &config.api).await.unwrap();
        if config.tls.is_enabled() {
            listener = listener.with_tls(TlsFiles::load(&config.tls).unwrap());
        }
        let store = Store::open(state.path(), retention).unwrap();
        let service = Service::new(Parts {
            config,
            keys: Keys::load(&store).await.unwrap(),
            languages: Languages::load(&languages()).unwrap(),
            images: Arc::new(FakeImages(Arc::clone(&world))),
            launcher: Arc::new(FakeLauncher(Arc::clone(&world))),
            scheduler: Scheduler::with_quotas(capacity, quotas),
            store,
        });
        let url = match listener.address().unwrap() {
            Listen::Tcp(address) => format!("http://127.0.0.1:{}", address.port()),
            unix => unix.to_string(),
        };
        let stop = CancellationToken::new();
        let router = http::router(service.clone());
        let limits = ConnectionLimits::new(&service.config().limits, service.bounds().clone());
        tokio::spawn(http::serve(
            listener,
            router,
            limits,
            stop.clone(),
            CancellationToken::new(),
        ));
        Backend {
            url,
            service,
            world,
            state,
            stop,
        }
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> Answer {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    /// A new key with these scopes: its text and its id.
    pub async fn key(&self, scopes: &[Scope]) -> (String, String) {
        let request = KeyRequest {
            name: "test".into(),
            scopes: scopes.to_vec(),
            expires_s: None,
        };
        let key = self.service.keys().create(request).await.unwrap();
        (key.key, key.info.id)
    }

    /// A request with a key.
    pub async fn send_as(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(method, path, &headers, body.to_owned()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], String::new()).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let (mut sender, _connection) = self.connect().await;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(http_body_util::Full::new(body.into()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            body,
        }
    }

    /// A connection; aborting the task closes it.
    pub async fn connect(
        &self,
    ) -> (
        hyper::client::conn::http1::SendRequest<http_body_util::Full<Bytes>>,
        tokio::task::JoinHandle<()>,
    ) {
        let stream = self.stream().await;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        (sender, task)
    }

    /// A connection for bytes.
    pub async fn stream(&self) -> Box<dyn Stream> {
        if let Some(path) = self.url.strip_prefix("unix:") {
            return Box::new(UnixStream::connect(path).await.unwrap());
        }
        let address = self.url.trim_start_matches("http://");
        Box::new(TcpStream::connect(address).await.unwrap())
    }

    /// Sends bytes and reads to the end.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = self.stream().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Polls `/status/{id}` until the execution is finished.
    pub async fn finished(&self, id: &str) -> serde_json::Value {
        for _ in 0..30_000 {
            let status = self.get(&format!("/status/{id}")).await.json();
            if status["status"] == "done" || status["status"] == "error" {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} does not finish");
    }

    /// Waits until `count` VMs are alive.
    pub async fn alive(&self, count: usize) {
        for _ in 0..30_000 {
            if self.world.alive.load(Ordering::SeqCst) == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{} VMs are alive, not {count}",
            self.world.alive.load(Ordering::SeqCst)
        );
    }
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The reason of a refusal: of a problem document below `/v1`, or of `{"error": …}`.
    pub fn failure(&self) -> String {
        let body = self.json();
        let is_problem = self.headers["content-type"] == "application/problem+json";
        let reason = &body[if is_problem { "detail" } else { "error" }];
        reason.as_str().unwrap().to_owned()
    }
}
