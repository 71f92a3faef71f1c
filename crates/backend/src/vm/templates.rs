//! Templates on request: listed, built, removed.

use cloude_protocol::api::TemplateInfo;

use super::launcher::VmLauncher;
use super::pool::Begin;
use super::pool::list::Standing;
use super::{Death, MachineSpec, TemplateError};

impl VmLauncher {
    pub(super) async fn list_templates(&self) -> Vec<TemplateInfo> {
        let mut list = self.forks.list();
        for info in &mut list {
            info.disk_bytes = self.kept.bytes(&info.id).await;
        }
        list
    }

    /// Gives whether it was built for this request, too.
    pub(super) async fn make_template(
        &self,
        spec: MachineSpec,
    ) -> Result<(TemplateInfo, bool), TemplateError> {
        if !self.forks_for(&spec) {
            return Err(TemplateError::Impossible(
                "no templates are made on this server: `pool.enabled` is off".into(),
            ));
        }
        let key = self.template_key(&spec).await?;
        let id = key.id();
        let mut changes = self.forks.changes();
        let mut began = false;
        loop {
            changes.mark_unchanged();
            match self.forks.standing(&id) {
                Standing::Ready => break,
                Standing::Failed(message) if began => {
                    return Err(Death::infrastructure(message).into());
                }
                Standing::Building => tokio::select! {
                    () = self.closing.cancelled() => return Err(Death::shutting_down().into()),
                    _ = changes.changed() => {}
                },
                Standing::Unknown | Standing::Failed(_) => {
                    match self.forks.begin(&id, self.is_default_machine(&spec)) {
                        Begin::Yours(covered) => {
                            let place = self.scheduler.enter(0).inspect_err(|_| {
                                self.forks.abandon(&id);
                            })?;
                            began = true;
                            self.build_template_of(key.clone(), &spec, Some(place), covered);
                        }
                        Begin::Theirs => {}
                        Begin::TooMany => return Err(TemplateError::Busy),
                    }
                }
            }
        }
        let list = self.list_templates().await;
        list.into_iter()
            .find(|info| info.id == id)
            .map(|info| (info, began))
            .ok_or_else(|| {
                TemplateError::from(Death::infrastructure("the template was removed at once"))
            })
    }

    /// Gives whether there was one, in memory or on the disk.
    pub(super) async fn drop_template(&self, id: &str) -> Result<bool, TemplateError> {
        // It becomes a file's name.
        let is_id = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_id {
            return Ok(false);
        }
        if self.forks.standing(id) == Standing::Building {
            return Err(TemplateError::Building);
        }
        let forks = self.forks.remove(id);
        let had = forks.is_some();
        self.stop_all(forks.unwrap_or_default());
        self.reserve_memory();
        let on_disk = self.kept.remove(id).await.map_err(Death::infrastructure)?;
        Ok(had || on_disk)
    }
}
