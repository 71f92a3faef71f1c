//! `GET /v1/installation`: paths of the files that this server uses, for `cloude doctor`.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use cloude_engine::WallState;
use cloude_protocol::api::{Installation, IsolationWall};
use cloude_protocol::paths;

use super::error::{ApiError, RequestError};
use super::peer::Peer;
use crate::config;
use crate::jobs::Service;

/// `GET /v1/installation`
pub async fn read(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
) -> Result<Json<Installation>, ApiError> {
    if !peer.is_local() {
        return Err(RequestError::NotLocal.into());
    }
    let config = service.config();
    let shown = |path: &Path| path.display().to_string();
    Ok(Json(Installation {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: paths::installed_kernel(&config.kernel),
        images: shown(&config.images.dir),
        languages: shown(&config.languages),
        image_max_age_days: config.images.max_age_days,
        state_dir: shown(&config.state_dir),
        cache_dir: shown(&config::cache_dir()),
        worker: shown(&config.vm.worker),
        agent: shown(&config.agent.binary),
        isolation: service.walls().into_iter().map(wall).collect(),
    }))
}

fn wall(state: WallState) -> IsolationWall {
    IsolationWall {
        name: state.wall.name().into(),
        missing: state.missing,
        fix: state.wall.fix().into(),
    }
}
