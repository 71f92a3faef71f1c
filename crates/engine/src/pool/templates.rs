//! Templates on request: listed, built, removed.

use std::sync::Arc;

use cloude_protocol::api::TemplateInfo;

use super::builds::{self, Build};
use super::forks::Begin;
use super::lease::demand;
use super::owner::Pool;
use super::status::TemplateStatus;
use crate::error::{Failure, TemplateError};
use crate::machine::MachineSpec;

impl Pool {
    /// All templates by language.
    pub async fn templates(&self) -> Vec<TemplateInfo> {
        let mut list = self.forks.list();
        for info in &mut list {
            info.disk_bytes = self.parts.store.bytes(&info.id).await;
        }
        list
    }

    /// See [`crate::Launcher::build_template`].
    pub async fn build_template(
        self: &Arc<Self>,
        spec: MachineSpec,
    ) -> Result<(TemplateInfo, bool), TemplateError> {
        if !self.may_fork(&spec) {
            return Err(TemplateError::Impossible(
                "this server makes no templates: `pool.enabled` is false".into(),
            ));
        }
        let key = self.parts.keys.key(&spec).await?;
        let id = key.id();
        let mut changes = self.forks.changes();
        let mut began = false;
        loop {
            changes.mark_unchanged();
            match self.forks.status(&id) {
                TemplateStatus::Ready => break,
                TemplateStatus::Failed(message) if began => {
                    return Err(Failure::infrastructure(message).into());
                }
                TemplateStatus::Building => tokio::select! {
                    () = self.closing.cancelled() => return Err(Failure::shutting_down().into()),
                    _ = changes.changed() => {}
                },
                TemplateStatus::Unknown | TemplateStatus::Failed(_) => {
                    match self.forks.begin(&id, self.is_default_machine(&spec)) {
                        Begin::Caller(waiver) => {
                            let permit = self
                                .parts
                                .admission
                                .enter(demand(&spec))
                                .inspect_err(|_| self.forks.abandon(&id))?;
                            began = true;
                            let build = Build {
                                key: key.clone(),
                                spec: spec.clone(),
                                permit: Some(permit),
                                waiver,
                            };
                            builds::spawn(self, build);
                        }
                        Begin::NotNeeded => {}
                        Begin::TooMany => return Err(TemplateError::TooManyBuilds),
                    }
                }
            }
        }
        let list = self.templates().await;
        list.into_iter()
            .find(|info| info.id == id)
            .map(|info| (info, began))
            .ok_or_else(|| {
                Failure::infrastructure("the template was removed right after its build").into()
            })
    }

    /// See [`crate::Launcher::remove_template`].
    pub async fn remove_template(&self, id: &str) -> Result<bool, TemplateError> {
        // The id becomes a file name.
        let is_id = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_id {
            return Ok(false);
        }
        if self.forks.status(id) == TemplateStatus::Building {
            return Err(TemplateError::Building);
        }
        let forks = self.forks.remove(id);
        let existed = forks.is_some();
        self.stop_all(forks.unwrap_or_default());
        self.reserve_memory();
        let stored = self
            .parts
            .store
            .remove(id)
            .await
            .map_err(Failure::infrastructure)?;
        Ok(existed || stored)
    }
}
