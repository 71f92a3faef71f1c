//! How a launcher builds templates: booted, warmed, saved, and tried.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use cloude_protocol::agent::Cause;
use cloude_protocol::language::Language;
use sha2::{Digest, Sha256};

use super::console::Console;
use super::fork::{self, Shape, WorkingSet};
use super::identity::new_identity;
use super::launcher::VmLauncher;
use super::machine::Vm;
use super::pool::Template;
use super::pool::list::About;
use super::template::key::TemplateKey;
use super::template::warm::{least, warm_request};
use super::{Death, MachineSpec};
use crate::agent;

/// What a template is built of.
struct Wanted {
    key: TemplateKey,
    language: Arc<Language>,
    image: PathBuf,
}

impl VmLauncher {
    pub(super) async fn template_key(&self, spec: &MachineSpec) -> Result<TemplateKey, Death> {
        let agent = &self.config.agent.binary;
        let [kernel, image, agent] = self.digests([&self.vmlinux, &spec.image, agent]).await?;
        Ok(TemplateKey {
            kernel,
            image,
            agent,
            language: self.language_digest(&spec.language)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: match self.has_device(spec.network) {
                true => format!("MTU {}", self.config.network.mtu),
                false => "none".to_owned(),
            },
            shape: Shape {
                vcpus: spec.vcpus,
                memory_mib: spec.memory_mib,
                network: spec.network,
            },
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

    /// Builds the template whose build was begun.
    pub(super) fn build_template_of(&self, key: TemplateKey, spec: &MachineSpec) {
        let about = About {
            language: spec.language.name.clone(),
            shape: key.shape,
        };
        self.forks.describe(&key.id(), about);
        self.build_in_background(Wanted {
            key,
            language: Arc::clone(&spec.language),
            image: spec.image.clone(),
        });
    }

    fn build_in_background(&self, wanted: Wanted) {
        let Some(me) = self.me.upgrade() else { return };
        self.tasks.spawn(async move {
            let id = wanted.key.id();
            let started = std::time::Instant::now();
            let result = tokio::select! {
                () = me.closing.cancelled() => Err(Death::cancelled()),
                // One at a time: each takes a whole VM beside those that run.
                result = async {
                    let _turn = me.building.lock().await;
                    let template = Arc::new(me.build(&wanted).await?);
                    me.rehearse(&template, &wanted.language).await;
                    Ok(template)
                } => result,
            };
            let language = &wanted.language.name;
            let ms = started.elapsed().as_millis() as u64;
            match &result {
                Ok(template) => {
                    let loaded = template.loaded;
                    let set = template.working_set.get();
                    let touched_pages = set.map(|set| set.written_pages);
                    tracing::info!(
                        template = id,
                        language,
                        ms,
                        loaded,
                        touched_pages,
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
            if let Some(template) = keep {
                me.kept.keep(id, template).await;
            }
        });
    }

    async fn build(&self, wanted: &Wanted) -> Result<Template, Death> {
        if let Some(template) = self.kept.load(&wanted.key).await {
            return Ok(template);
        }
        match self.build_once(wanted).await {
            Err(death) if death.cause == Cause::GuestPanic => {
                let message = death.message;
                tracing::warn!(message, "a template's guest died; starting another");
                self.build_once(wanted).await
            }
            result => result,
        }
    }

    async fn build_once(&self, wanted: &Wanted) -> Result<Template, Death> {
        let mut vm = Vm {
            worker: None,
            attached: self.attach(wanted.key.shape.network).await?,
            console: Console::default(),
            store: self.store.clone(),
            _busy: None,
        };
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
                "the agent, the image or the kernel was replaced while it was built",
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

    /// Runs the least program of the language in a fork, which shows what forks of the template touch: the forks
    /// after it have those pages before they run. Of a client's program nothing is recorded. Where it fails
    /// that is told, and forks touch their pages themselves.
    async fn rehearse(&self, template: &Arc<Template>, language: &Language) {
        match self.rehearse_in_fork(template, language).await {
            Ok(list) => {
                let _ = template.working_set.set(list);
            }
            Err(death) => {
                let (language, reason) = (&language.name, death.message);
                tracing::warn!(language, reason, "a template's rehearsal failed");
            }
        }
    }

    async fn rehearse_in_fork(
        &self,
        template: &Arc<Template>,
        language: &Language,
    ) -> Result<WorkingSet, Death> {
        let attached = self.attach(template.shape.network).await?;
        let paused = self.pause_fork(template, attached).await?;
        let (vm, stream, network) = self.run_fork(paused).await?;
        let mut request = least(language, &self.config.limits);
        // As long as the language's own limits allow, and the agent's part beside.
        let compile = request.compile.as_ref();
        let stages = compile.map_or(0, |stage| stage.wall_time_ms) + request.run.wall_time_ms;
        let time = Duration::from_millis(stages + self.config.agent.grace_ms);
        let result = async {
            let identity = new_identity("rehearsal", network)
                .map_err(|error| Death::infrastructure(format!("an identity: {error}")))?;
            request.identity = Some(identity);
            // Open until it has shown them: what a VM does where it closes, nobody waits for.
            let _connection = agent::execute(stream, &template.token, &request, |_| ())
                .await
                .map_err(|error| Death::infrastructure(error.to_string()))?;
            fork::working_set(vm.worker()?).await
        };
        let result = tokio::time::timeout(time, result).await;
        let result = result
            .unwrap_or_else(|_| Err(Death::infrastructure("it does not end")))
            .map_err(|death| vm.explain(death));
        Box::new(vm).end().await;
        result
    }
}

/// Of everything in a language file that a template is warmed with.
fn language_digest(language: &Language) -> Result<String, Death> {
    let text = serde_json::to_vec(language)
        .map_err(|error| Death::infrastructure(format!("the language file: {error}")))?;
    let digest = Sha256::digest(&text);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
