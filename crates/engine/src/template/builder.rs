//! Builds templates: boot, warm, save, and probe the working set.

use std::sync::{Arc, OnceLock};

use cloude_protocol::agent::{Event, StageName};
use cloude_protocol::language::Language;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::disk_store::DiskStore;
use super::key::TemplateKey;
use super::keys::TemplateKeys;
use super::warm::{probe, warm_request};
use crate::config::EngineConfig;
use crate::error::Failure;
use crate::guest;
use crate::machine::MachineSpec;
use crate::network::NetworkProvider;
use crate::snapshot::{Template, WorkingSet};
use crate::worker::{self, Workers};

/// Makes a template.
pub trait TemplateSource: Send + Sync {
    /// The template of `key`. `spec` is a machine of that key. Dropping the future ends the build's VM.
    fn template<'a>(
        &'a self,
        key: &'a TemplateKey,
        spec: &'a MachineSpec,
    ) -> BoxFuture<'a, Result<Arc<Template>, Failure>>;
}

/// Loads templates from the disk store, and builds those that are not there.
pub struct TemplateBuilder {
    config: Arc<EngineConfig>,
    workers: Arc<Workers>,
    network: Arc<NetworkProvider>,
    keys: Arc<TemplateKeys>,
    store: Arc<DiskStore>,
}

impl TemplateBuilder {
    /// A builder on these workers.
    pub fn new(
        config: Arc<EngineConfig>,
        workers: Arc<Workers>,
        network: Arc<NetworkProvider>,
        keys: Arc<TemplateKeys>,
        store: Arc<DiskStore>,
    ) -> Self {
        TemplateBuilder {
            config,
            workers,
            network,
            keys,
            store,
        }
    }

    async fn load_or_build(
        &self,
        key: &TemplateKey,
        spec: &MachineSpec,
    ) -> Result<Arc<Template>, Failure> {
        let template = match self.store.load(key).await {
            Some(template) => template,
            None => self.build(key, spec).await?,
        };
        let template = Arc::new(template);
        match self.probe(&template, &spec.language).await {
            Ok(working_set) => {
                let _ = template.working_set.set(working_set);
            }
            // Forks then take their page faults one by one.
            Err(failure) => tracing::warn!(
                language = spec.language.name,
                reason = failure.message,
                "the working set of a template could not be found"
            ),
        }
        Ok(template)
    }

    async fn build(&self, key: &TemplateKey, spec: &MachineSpec) -> Result<Template, Failure> {
        let spec = MachineSpec {
            id: format!("template-{}", spec.language.name),
            start: None,
            ..spec.clone()
        };
        let attached = self.network.attach(spec.network).await?;
        let booted = self
            .workers
            .boot(&spec, attached, true, &CancellationToken::new())
            .await?;
        let vm = booted.vm;
        let request = warm_request(&spec.language, self.config.warm_time_ms);
        let saved = async {
            let (_, connection) = guest::warm(booted.stream, &booted.token, &request)
                .await
                .map_err(|error| Failure::infrastructure(format!("warming the VM: {error}")))?;
            let snapshot = worker::save(vm.worker(), key.origin()).await?;
            drop(connection);
            // The files may have been replaced between the key's computation and the boot.
            if self.keys.key(&spec).await? != *key {
                return Err(Failure::infrastructure(
                    "the kernel, image, agent, worker or language was replaced during the build",
                ));
            }
            Ok(snapshot)
        };
        let saved = saved.await.map_err(|failure| vm.explain(failure));
        vm.end().await;
        Ok(Template {
            snapshot: saved?,
            token: booted.token,
            shape: key.shape,
            loaded: false,
            working_set: OnceLock::new(),
        })
    }

    /// Runs the probe program in a fork, and lists the pages that the fork touched until the program first
    /// printed. The program waits then, so that the pages of its end are not in the list: they are of no use
    /// to a program that runs on.
    async fn probe(
        &self,
        template: &Arc<Template>,
        language: &Language,
    ) -> Result<WorkingSet, Failure> {
        let attached = self.network.attach(template.shape.network).await?;
        let fork = self.workers.fork(template, attached).await?;
        let (vm, stream, network) = self.workers.resume(fork).await?;
        let mut request = probe(language, self.config.warm_time_ms);
        let time = guest::wall_time(&request) + self.config.agent.grace();
        let printed = Notify::new();
        let result = async {
            let identity = guest::new_identity("probe", network)
                .map_err(|error| Failure::infrastructure(format!("an identity: {error}")))?;
            request.identity = Some(identity);
            let exchange = guest::execute(stream, &template.token, &request, |event| {
                if let Event::Output {
                    stage: StageName::Run,
                    ..
                } = event
                {
                    printed.notify_one();
                }
            });
            tokio::pin!(exchange);
            // Open until the pages are listed: the guest would touch more pages when it closes.
            let mut connection = None;
            tokio::select! {
                biased;
                () = printed.notified() => {}
                ended = &mut exchange => {
                    let ended = ended.map_err(|error| Failure::infrastructure(error.to_string()))?;
                    connection = Some(ended);
                }
            }
            let working_set = worker::working_set(vm.worker()).await;
            drop(connection);
            working_set
        };
        let result = tokio::time::timeout(time, result)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::infrastructure(
                    "the probe program did not print within its limits",
                ))
            })
            .map_err(|failure| vm.explain(failure));
        vm.end().await;
        result
    }
}

impl TemplateSource for TemplateBuilder {
    fn template<'a>(
        &'a self,
        key: &'a TemplateKey,
        spec: &'a MachineSpec,
    ) -> BoxFuture<'a, Result<Arc<Template>, Failure>> {
        self.load_or_build(key, spec).boxed()
    }
}
