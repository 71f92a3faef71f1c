//! Template builds, in tasks of the pool.

use std::sync::Arc;
use std::time::Instant;

use super::entry::PermitWaiver;
use super::owner::Pool;
use super::status::TemplateLabel;
use crate::admission::PendingPermit;
use crate::error::Failure;
use crate::machine::MachineSpec;
use crate::snapshot::Template;
use crate::template::TemplateKey;

/// A build that has begun ([`super::entry::Found::Begin`], [`super::forks::Begin::Caller`]).
pub struct Build {
    /// The key of the template.
    pub key: TemplateKey,
    /// A machine of that key.
    pub spec: MachineSpec,
    /// The build's VM waits for this permit; `None` if an execution's permit covers it.
    pub permit: Option<PendingPermit>,
    /// Ends the wait for the permit.
    pub waiver: PermitWaiver,
}

/// Runs a build in a task.
pub fn spawn(pool: &Arc<Pool>, build: Build) {
    let label = TemplateLabel {
        language: build.spec.language.name.clone(),
        shape: build.key.shape,
    };
    pool.forks.describe(&build.key.id(), label);
    let own = Arc::clone(pool);
    pool.tasks.spawn(async move { own.run_build(build).await });
}

impl Pool {
    async fn run_build(self: Arc<Self>, build: Build) {
        let id = build.key.id();
        let language = build.spec.language.name.clone();
        let started = Instant::now();
        // A task of its own, so that a panic is a failed build and not a template that is built for ever.
        let pool = Arc::clone(&self);
        let built = tokio::spawn(async move {
            tokio::select! {
                () = pool.closing.cancelled() => Err(Failure::shutting_down()),
                result = pool.build(build) => result,
            }
        });
        let result = built
            .await
            .unwrap_or_else(|error| Err(Failure::infrastructure(format!("the build: {error}"))));
        let ms = started.elapsed().as_millis() as u64;
        match &result {
            Ok(template) => {
                let set = template.working_set.get();
                tracing::info!(
                    template = id,
                    language,
                    ms,
                    loaded = template.loaded,
                    written_pages = set.map(|set| set.written_pages),
                    read_pages = set.map(|set| set.read_pages),
                    "template ready"
                );
            }
            Err(failure) => {
                let reason = &failure.message;
                tracing::warn!(template = id, language, ms, reason, "template build failed");
            }
        }
        let built = result.as_ref().ok().filter(|template| !template.loaded);
        let to_store = built.map(Arc::clone);
        let result = result.map_err(|failure| failure.message);
        self.stop_all(self.forks.built(&id, result));
        self.reserve_memory();
        if let Some(template) = to_store {
            self.parts.store.store(id, template).await;
        }
    }

    async fn build(&self, build: Build) -> Result<Arc<Template>, Failure> {
        let _permit = match build.permit {
            Some(permit) => tokio::select! {
                permit = permit => Some(permit),
                () = build.waiver.cancelled() => None,
            },
            None => None,
        };
        self.parts.source.template(&build.key, &build.spec).await
    }
}
