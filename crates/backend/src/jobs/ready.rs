//! Whether the server can run programs, part by part.

use cloude_protocol::api::{Readiness, ReadyPart as Part, TemplateState};

use super::service::{Health, Service};

/// Free bytes of the state folder's file system below which the server is not ready.
const LEAST_FREE: u64 = 64 << 20;

fn required(name: &str, state: Result<String, String>) -> Part {
    let ready = state.is_ok();
    let (Ok(detail) | Err(detail)) = state;
    Part {
        name: name.to_owned(),
        ready,
        required: true,
        detail,
    }
}

impl Service {
    /// Looks at every part.
    pub async fn readiness(&self) -> Readiness {
        let mut parts = vec![
            required(
                "server",
                match self.is_draining() {
                    true => Err("the server is shutting down".into()),
                    false => Ok("accepts executions".into()),
                },
            ),
            required(
                "kvm",
                self.parts().launcher.check().map(|()| "usable".to_owned()),
            ),
            required("disk", self.disk()),
            required("store", self.store_state().await),
        ];
        let templates = self.templates().await;
        let mut images = 0;
        for language in self.languages() {
            let name = &language.name;
            images += usize::from(language.image_ready);
            parts.push(Part {
                name: format!("image {name}"),
                ready: language.image_ready,
                required: false,
                detail: match language.version {
                    Some(version) => version,
                    None if language.image_ready => "built".into(),
                    None => "not built".into(),
                },
            });
            let of_language = templates.iter().filter(|info| info.language == *name);
            let states: Vec<_> = of_language.map(|info| info.state).collect();
            parts.push(Part {
                name: format!("template {name}"),
                ready: states.contains(&TemplateState::Ready),
                required: false,
                detail: if states.contains(&TemplateState::Ready) {
                    "ready"
                } else if states.contains(&TemplateState::Building) {
                    "building"
                } else if states.contains(&TemplateState::Failed) {
                    "failed"
                } else {
                    "not built: the first execution builds it"
                }
                .into(),
            });
        }
        let works = parts.iter().all(|part| part.ready || !part.required);
        Readiness {
            ready: works && images > 0,
            parts,
        }
    }

    fn disk(&self) -> Result<String, String> {
        let path = &self.config().state_dir;
        let space = rustix::fs::statvfs(path)
            .map_err(|error| format!("statvfs of {}: {error}", path.display()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let text = format!("{} MiB are free in the state folder", free >> 20);
        match free >= LEAST_FREE {
            true => Ok(text),
            false => Err(text),
        }
    }

    async fn store_state(&self) -> Result<String, String> {
        if let Health::Degraded(failures) = self.health() {
            return Err(format!("the job store cannot write: {}", failures.error));
        }
        let read = self.parts().store.get("").await;
        read.map(|_| "reads and writes".to_owned())
            .map_err(|error| error.to_string())
    }
}
