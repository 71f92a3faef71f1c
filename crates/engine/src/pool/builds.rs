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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cloude_protocol::api::StartChoice;
    use cloude_protocol::language::Language;
    use futures_util::future::BoxFuture;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admission::Unlimited;
    use crate::config::{self, EngineConfig};
    use crate::files::Digests;
    use crate::isolation::Prison;
    use crate::network::NetworkProvider;
    use crate::pool::PoolParts;
    use crate::run_dir::RunDir;
    use crate::template::{DiskStore, TemplateKeys, TemplateSource};
    use crate::worker::{SharedSegment, Workers};

    /// A source whose builds fail or panic.
    struct Broken {
        panics: bool,
    }

    impl TemplateSource for Broken {
        fn template<'a>(
            &'a self,
            _key: &'a TemplateKey,
            _spec: &'a MachineSpec,
        ) -> BoxFuture<'a, Result<Arc<Template>, Failure>> {
            Box::pin(async {
                assert!(!self.panics, "a bug in the build");
                Err(Failure::infrastructure("the kernel does not boot"))
            })
        }
    }

    /// A pool whose kernel, agent, worker and image are empty files in `dir`.
    fn pool(dir: &Path, source: Broken) -> (Arc<Pool>, MachineSpec) {
        for name in ["vmlinux", "agent", "worker", "image"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        let mut config = EngineConfig {
            kernel: dir.join("vmlinux"),
            pool: config::Pool {
                disk: "off".into(),
                ..config::Pool::default()
            },
            ..EngineConfig::default()
        };
        config.agent.binary = dir.join("agent");
        config.vm.worker = dir.join("worker");
        let config = Arc::new(config);
        let run_dir = RunDir::open(&dir.join("run")).unwrap();
        let digests = Arc::new(Digests::default());
        let segment =
            SharedSegment::new(&config.agent.binary, &config.kernel, Arc::clone(&digests));
        let segment = Arc::new(segment.unwrap());
        let workers = Workers::new(
            Arc::clone(&config),
            Arc::clone(&segment),
            Arc::new(Prison::none()),
            run_dir.clone(),
        );
        let parts = PoolParts {
            workers: Arc::new(workers),
            network: Arc::new(NetworkProvider::new(Arc::clone(&config), run_dir)),
            keys: Arc::new(TemplateKeys::new(Arc::clone(&config), segment, digests)),
            source: Arc::new(source),
            store: Arc::new(DiskStore::new(&config.pool)),
            admission: Arc::new(Unlimited),
            config,
        };
        let language: Language = toml::from_str(
            r#"
            name = "l"
            file = "f"
            image = { reference = "r", debian = { suite = "s", packages = [] } }
            run.command = ["true"]
            self_test = { code = "", stdin = "", args = [], stdout = "", exit_code = 0 }
            "#,
        )
        .unwrap();
        let spec = MachineSpec {
            id: "01234567-test".into(),
            image: dir.join("image"),
            language: Arc::new(language),
            vcpus: 1,
            memory_mib: 512,
            network: false,
            template_owner: None,
            start: Some(StartChoice::Fork),
        };
        (Arc::new(Pool::new(parts, CancellationToken::new())), spec)
    }

    async fn failure_of(source: Broken) -> String {
        let dir = tempfile::tempdir().unwrap();
        let (pool, spec) = pool(dir.path(), source);
        let leased = pool.lease(&spec, &CancellationToken::new()).await;
        pool.close().await;
        leased.err().unwrap().message
    }

    #[tokio::test]
    async fn a_required_fork_fails_with_its_build() {
        let message = failure_of(Broken { panics: false }).await;
        assert!(message.contains("the kernel does not boot"), "{message}");
    }

    #[tokio::test]
    async fn a_panic_in_a_build_fails_the_build() {
        let message = failure_of(Broken { panics: true }).await;
        assert!(message.contains("panicked"), "{message}");
    }
}
