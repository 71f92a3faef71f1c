//! `GET /v1/installation`: where the files of this server are, for `cloude doctor`.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use cloude_protocol::api::{Installation, InstalledKernel};

use super::error::ApiError;
use super::peer::Peer;
use crate::config;
use crate::jobs::Service;

/// `GET /v1/installation`
pub async fn read(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
) -> Result<Json<Installation>, ApiError> {
    if !peer.is_loopback() {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "only a client on the server's own machine is told where its files are",
        ));
    }
    let config = service.config();
    let shown = |path: &Path| path.display().to_string();
    Ok(Json(Installation {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: kernel(&config.kernel),
        images: shown(&config.images.dir),
        languages: shown(&config.languages),
        state_dir: shown(&config.state_dir),
        cache_dir: shown(&config::cache_dir()),
        worker: shown(&config.vm.worker),
        agent: shown(&config.agent.binary),
    }))
}

fn kernel(path: &Path) -> InstalledKernel {
    let release = std::fs::read_to_string(path.join("release"));
    InstalledKernel {
        path: path.display().to_string(),
        present: path.is_file() || path.join("vmlinux").is_file(),
        modules: path.is_dir(),
        release: release.ok().map(|text| text.trim().to_owned()),
    }
}
