//! How a launcher builds templates: booted, warmed, saved, and tried.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use cloude_protocol::agent::{Event, StageName};
use cloude_protocol::language::Language;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::fork::{self, Shape, WorkingSet};
use super::identity::new_identity;
use super::launcher::VmLauncher;
use super::machine::Vm;
use super::pool::list::About;
use super::pool::{Covered, Template};
use super::template::key::TemplateKey;
use super::template::warm::{probe, warm_request};
use super::{Death, MachineSpec, WORKER_MIB};
use crate::agent;
use crate::scheduler::{Demand, Permit, Place};

/// What a template is built of.
struct Wanted {
    key: TemplateKey,
    language: Arc<Language>,
    image: PathBuf,
}

impl VmLauncher {
    pub(super) async fn template_key(&self, spec: &MachineSpec) -> Result<TemplateKey, Death> {
        let shape = Shape {
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            network: spec.network,
        };
        let files = [&self.vmlinux, &spec.image, &self.config.vm.worker];
        let [kernel, image, worker] = self.digests(files).await?;
        let boot = self
            .template_boot_text(shape)
            .map_err(|error| Death::infrastructure(format!("the boot request: {error}")))?;
        Ok(TemplateKey {
            kernel,
            image,
            segment: self.segment.get().await?.digest,
            boot: const_hex::encode(Sha256::digest(boot)),
            language: self.language_digest(&spec.language)?,
            worker,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shape,
        })
    }

    /// The language's digest, made once for each that was read.
    fn language_digest(&self, language: &Arc<Language>) -> Result<String, Death> {
        let mut known = self
            .languages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((of, digest)) = known.get(&language.name)
            && Arc::ptr_eq(of, language)
        {
            return Ok(digest.clone());
        }
        let digest = language_digest(language)?;
        let entry = (Arc::clone(language), digest.clone());
        known.insert(language.name.clone(), entry);
        Ok(digest)
    }

    /// The digests of files as they are now.
    async fn digests(&self, paths: [&PathBuf; 3]) -> Result<[String; 3], Death> {
        // Nearly always: as long as nothing was replaced.
        if let [Some(a), Some(b), Some(c)] = paths.map(|path| self.digests.known(path)) {
            return Ok([a, b, c]);
        }
        let (digests, paths) = (Arc::clone(&self.digests), paths.map(PathBuf::clone));
        let read = tokio::task::spawn_blocking(move || {
            let of = |path: &PathBuf| {
                let digest = digests.of(path);
                digest.map_err(|error| {
                    Death::infrastructure(format!("reading {}: {error}", path.display()))
                })
            };
            let [a, b, c] = &paths;
            Ok([of(a)?, of(b)?, of(c)?])
        });
        read.await
            .map_err(|error| Death::infrastructure(error.to_string()))?
    }

    /// Builds the template whose build was begun, in a VM that waits for its permit from `place` unless it is
    /// `covered`.
    pub(super) fn build_template_of(
        &self,
        key: TemplateKey,
        spec: &MachineSpec,
        place: Option<Place>,
        covered: Covered,
    ) {
        let Some(me) = self.me.upgrade() else { return };
        let about = About {
            language: spec.language.name.clone(),
            shape: key.shape,
        };
        self.forks.describe(&key.id(), about);
        let wanted = Wanted {
            key,
            language: Arc::clone(&spec.language),
            image: spec.image.clone(),
        };
        self.tasks.spawn(async move {
            let id = wanted.key.id();
            let started = std::time::Instant::now();
            let result = tokio::select! {
                () = me.closing.cancelled() => Err(Death::shutting_down()),
                result = async {
                    let demand = Demand {
                        memory_mib: wanted.key.shape.memory_mib + WORKER_MIB,
                        vcpus: usize::from(wanted.key.shape.vcpus),
                    };
                    let _permit = permit(place, demand, &covered).await;
                    let template = Arc::new(me.build(&wanted).await?);
                    me.find_working_set(&template, &wanted.language).await;
                    Ok(template)
                } => result,
            };
            let language = &wanted.language.name;
            let ms = started.elapsed().as_millis() as u64;
            match &result {
                Ok(template) => {
                    let loaded = template.loaded;
                    let set = template.working_set.get();
                    let written_pages = set.map(|set| set.written_pages);
                    let read_pages = set.map(|set| set.read_pages);
                    tracing::info!(
                        template = id,
                        language,
                        ms,
                        loaded,
                        written_pages,
                        read_pages,
                        "template ready"
                    );
                }
                Err(death) => {
                    let reason = &death.message;
                    tracing::warn!(template = id, language, ms, reason, "no template");
                }
            }
            let result = result.map_err(|death| death.message);
            let keep = result.as_ref().ok().filter(|template| !template.loaded);
            let keep = keep.map(Arc::clone);
            me.stop_all(me.forks.built(&id, result));
            me.reserve_memory();
            if let Some(template) = keep {
                me.kept.keep(id, template).await;
            }
        });
    }

    /// Keeps the memory that templates hold from VMs. To be called whenever a template comes or goes.
    pub(super) fn reserve_memory(&self) {
        self.scheduler
            .reserve(self.forks.held_bytes().div_ceil(1 << 20));
    }

    async fn build(&self, wanted: &Wanted) -> Result<Template, Death> {
        if let Some(template) = self.kept.load(&wanted.key).await {
            return Ok(template);
        }
        let mut vm = self.new_vm(self.attach(wanted.key.shape.network).await?);
        let result = self.build_in(&mut vm, wanted).await;
        let result = result.map_err(|death| vm.explain(death));
        Box::new(vm).end().await;
        result
    }

    async fn build_in(&self, vm: &mut Vm, wanted: &Wanted) -> Result<Template, Death> {
        let shape = wanted.key.shape;
        let spec = MachineSpec {
            id: format!("template-{}", wanted.language.name),
            image: wanted.image.clone(),
            language: Arc::clone(&wanted.language),
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            network: shape.network,
            start: None,
        };
        vm.adopt(self.spawn_worker().await?);
        let (stream, token) = self.boot_within_time(vm, &spec, true).await?;
        let request = warm_request(&wanted.language, &self.config.limits);
        let (_, held) = agent::warm(stream, &token, &request)
            .await
            .map_err(|error| Death::infrastructure(format!("warming it: {error}")))?;
        let snapshot = fork::save(vm.worker()?, wanted.key.origin()).await?;
        drop(held);
        // It was booted from what lay there by then.
        if self.template_key(&spec).await? != wanted.key {
            return Err(Death::infrastructure(
                "what it is made of was replaced while it was built: the kernel, the image, the agent, the \
                 worker or the language",
            ));
        }
        Ok(Template {
            snapshot,
            token,
            shape,
            loaded: false,
            working_set: OnceLock::new(),
        })
    }

    /// Runs the probe program of the language in a fork, which shows what forks of the template touch. Nothing
    /// is recorded of a client's program. A failure is logged: forks then take their page faults one by one.
    async fn find_working_set(&self, template: &Arc<Template>, language: &Language) {
        match self.probe(template, language).await {
            Ok(list) => {
                let _ = template.working_set.set(list);
            }
            Err(death) => {
                let (language, reason) = (&language.name, death.message);
                tracing::warn!(language, reason, "a template's working set is not known");
            }
        }
    }

    /// The pages that a fork has touched when its program prints for the first time. A program that waits then
    /// has not touched the pages of its end, of which a program that goes on makes no use.
    async fn probe(
        &self,
        template: &Arc<Template>,
        language: &Language,
    ) -> Result<WorkingSet, Death> {
        let attached = self.attach(template.shape.network).await?;
        let paused = self.pause_fork(template, attached).await?;
        let (vm, stream, network) = self.run_fork(paused).await?;
        let mut request = probe(language, &self.config.limits);
        // As long as the language's own limits allow, and the agent's part besides.
        let compile = request.compile.as_ref();
        let stages = compile.map_or(0, |stage| stage.wall_time_ms) + request.run.wall_time_ms;
        let time = Duration::from_millis(stages + self.config.agent.grace_ms);
        let printed = Notify::new();
        let result = async {
            let identity = new_identity("probe", network)
                .map_err(|error| Death::infrastructure(format!("an identity: {error}")))?;
            request.identity = Some(identity);
            let exchange = agent::execute(stream, &template.token, &request, |event| {
                if matches!(
                    event,
                    Event::Output {
                        stage: StageName::Run,
                        ..
                    }
                ) {
                    printed.notify_one();
                }
            });
            tokio::pin!(exchange);
            // The connection stays open until the pages are known: its end would have the guest do more.
            let mut connection = None;
            tokio::select! {
                biased;
                () = printed.notified() => {}
                ended = &mut exchange => {
                    let ended = ended.map_err(|error| Death::infrastructure(error.to_string()))?;
                    connection = Some(ended);
                }
            }
            let working_set = fork::working_set(vm.worker()?).await;
            drop(connection);
            working_set
        };
        let result = tokio::time::timeout(time, result).await;
        let result = result
            .unwrap_or_else(|_| Err(Death::infrastructure("it does not end")))
            .map_err(|death| vm.explain(death));
        Box::new(vm).end().await;
        result
    }
}

/// A permit for a build's VM, once there is room; none if an execution's own covers it.
async fn permit(place: Option<Place>, demand: Demand, covered: &Covered) -> Option<Permit> {
    let place = place?;
    tokio::select! {
        permit = place.admitted(demand) => Some(permit),
        () = covered.cancelled() => None,
    }
}

/// Of everything in a language file that a template is warmed with.
fn language_digest(language: &Language) -> Result<String, Death> {
    let text = serde_json::to_vec(language)
        .map_err(|error| Death::infrastructure(format!("the language file: {error}")))?;
    Ok(const_hex::encode(Sha256::digest(&text)))
}
