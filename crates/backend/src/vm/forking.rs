//! How a launcher forks templates, and keeps forks ready.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cloude_protocol::agent::NetworkIdentity;
use cloude_protocol::api::{StartChoice, StartKind};
use tokio_util::sync::CancellationToken;

use super::console::Console;
use super::control::Worker;
use super::fork::{Fork, Parts, Shell};
use super::launcher::{VmLauncher, open_kvm};
use super::machine::Vm;
use super::pool::list::private_kib;
use super::pool::{Found, Paused, Template};
use super::{AgentStream, Death, MachineSpec, Started, orphans};
use crate::network::Attached;
use crate::store::WorkerRecord;

/// However quiet it is, the pool is looked at so often, to shrink.
const LOOK: Duration = Duration::from_secs(5);
/// What may pass between two forks that the pool makes: running work comes first.
const REST: Duration = Duration::from_millis(5);

impl VmLauncher {
    /// Whether executions like this one are forked at all.
    pub(super) fn forks_for(&self, spec: &MachineSpec) -> bool {
        self.config.pool.enabled && spec.start != Some(StartChoice::Cold)
    }

    /// A fork of the spec's template; none if there is no template yet, which is then being built. Where
    /// the spec insists on a fork, it waits for that.
    pub(super) async fn fork(
        &self,
        spec: &MachineSpec,
        cancel: &CancellationToken,
    ) -> Result<Option<Started>, Death> {
        let must = spec.start == Some(StartChoice::Fork);
        // Until the VM counts by itself: the pool hears of a fork that is taken, and would begin to fill itself up
        // beside it. Not in the loop, for its end is a change.
        let _busy = self.forks.busy();
        let mut changes = self.forks.changes();
        loop {
            changes.mark_unchanged();
            // Each time: what it is of may be replaced while this waits.
            let key = self.template_key(spec).await?;
            let id = key.id();
            match self.forks.find(&id) {
                Found::Paused(paused) => match self.resume(*paused, &id, StartKind::Pool).await {
                    Ok(started) => return Ok(Some(started)),
                    Err(death) => self.fork_failed(&id, &death),
                },
                Found::Ready(template) => {
                    let forked = async {
                        let attached = self.attach(template.shape.network).await?;
                        let paused = self.pause_fork(&template, attached).await?;
                        self.forks.made(&id);
                        self.resume(paused, &id, StartKind::Fork).await
                    };
                    return match forked.await {
                        Ok(started) => Ok(Some(started)),
                        Err(death) => {
                            self.fork_failed(&id, &death);
                            if must { Err(death) } else { Ok(None) }
                        }
                    };
                }
                Found::Begin => {
                    self.build_template_of(key.clone(), spec);
                    if !must {
                        return Ok(None);
                    }
                }
                Found::Failed(message) if must => {
                    return Err(Death::infrastructure(format!(
                        "the template of `{}` could not be built: {message}",
                        spec.language.name
                    )));
                }
                Found::Failed(_) => return Ok(None),
                Found::Building if !must => return Ok(None),
                Found::Building => tokio::select! {
                    () = cancel.cancelled() => return Err(Death::cancelled()),
                    () = self.closing.cancelled() => return Err(Death::cancelled()),
                    _ = changes.changed() => {}
                },
            }
        }
    }

    /// Told, and counted against the template.
    pub(super) fn fork_failed(&self, id: &str, death: &Death) {
        tracing::warn!(template = id, reason = death.message, "a fork failed");
        let distrust = || self.kept.distrust(id, &death.message);
        if let Some(forks) = self.forks.failed(id, distrust) {
            tracing::error!(template = id, "its forks fail: the template is built anew");
            self.stop_all(forks);
        }
    }

    /// Makes a fork that waits. A shell of its own, too: some milliseconds. Its network is given back when
    /// the fork is stopped or fails, here or later.
    pub(super) async fn pause_fork(
        &self,
        template: &Arc<Template>,
        mut attached: Option<Attached>,
    ) -> Result<Paused, Death> {
        match self.pause_fork_at(template, attached.as_mut()).await {
            Ok((fork, console)) => Ok(Paused {
                fork,
                attached,
                console,
                template: Arc::clone(template),
            }),
            Err(death) => {
                // Its worker is gone by now.
                if let Some(attached) = attached {
                    attached.release().await;
                }
                Err(death)
            }
        }
    }

    async fn pause_fork_at(
        &self,
        template: &Template,
        attached: Option<&mut Attached>,
    ) -> Result<(Fork, Console), Death> {
        let failed = |error: std::io::Error| Death::infrastructure(format!("a fork: {error}"));
        let (console, console_end) =
            Console::open("fork", self.config.vm.log_guest_console).map_err(failed)?;
        let kvm = open_kvm()?;
        let worker = self.spawn_worker().await?;
        let pid = worker.pid();
        if let Some(start_time) = orphans::start_time(pid) {
            let ip = attached.as_deref().map(Attached::ip);
            self.store
                .worker_started(WorkerRecord { pid, start_time }, ip);
        }
        let parts = Parts {
            kvm,
            tap: attached.and_then(|attached| {
                let spec = self.tap_spec(attached);
                Some((spec, attached.take_tap()?))
            }),
            console: console_end,
            cpu_baseline: self.config.vm.cpu_baseline,
        };
        let forked: Result<Fork, Death> = async {
            let shell = Shell::make(worker, template.shape, parts).await?;
            let working_set = template.working_set.get();
            shell.take(&template.snapshot, working_set).await
        }
        .await;
        match &forked {
            Ok(fork) => {
                let costs = fork.costs();
                tracing::debug!(
                    pid,
                    ioctls = costs.ioctls,
                    minor_faults = costs.minor_faults,
                    restore_us = costs.elapsed_us,
                    "a fork was made"
                );
            }
            Err(_) => self.store.worker_ended(pid),
        }
        Ok((forked?, console))
    }

    async fn resume(&self, paused: Paused, id: &str, start: StartKind) -> Result<Started, Death> {
        let token = paused.template.token.clone();
        let (vm, stream, network) = self.run_fork(paused).await?;
        Ok(Started {
            stream,
            token,
            ip: vm.ip(),
            start,
            template: Some(id.to_owned()),
            network,
            machine: Box::new(vm),
        })
    }

    /// Lets a fork run, whose agent then waits for an identity on the stream.
    pub(super) async fn run_fork(
        &self,
        paused: Paused,
    ) -> Result<(Vm, Box<dyn AgentStream>, Option<NetworkIdentity>), Death> {
        let pid = paused.fork.pid();
        let (worker, stream) = match paused.fork.resume() {
            Ok(running) => running,
            Err(death) => {
                // Its worker is gone.
                self.store.worker_ended(pid);
                if let Some(attached) = paused.attached {
                    attached.release().await;
                }
                return Err(death);
            }
        };
        let network = paused.attached.as_ref().map(Attached::identity);
        let vm = Vm {
            worker: Some(worker),
            attached: paused.attached,
            console: paused.console,
            store: self.store.clone(),
            _busy: Some(self.forks.busy()),
        };
        Ok((vm, stream, network))
    }

    /// Stops forks off everybody's path.
    pub(super) fn stop_all(&self, forks: Vec<Paused>) {
        if !forks.is_empty() {
            let store = self.store.clone();
            self.tasks.spawn(async move {
                for paused in forks {
                    paused.stop(&store).await;
                }
            });
        }
    }

    /// Keeps the pool as its plan wants it, until the launcher goes.
    pub(super) async fn keep_pool(me: Weak<VmLauncher>) {
        let Some(mut changes) = me.upgrade().map(|launcher| launcher.forks.changes()) else {
            return;
        };
        loop {
            let Some(launcher) = me.upgrade() else { return };
            changes.mark_unchanged();
            let busy = launcher.tend_pool().await;
            let closing = launcher.closing.clone();
            let look = launcher.forks.hold().unwrap_or(LOOK);
            drop(launcher);
            let rest = if busy { REST } else { look };
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
                _ = changes.changed(), if !busy => {}
            }
        }
    }

    /// One fork for each template that lacks some. Gives whether there may be more to do.
    async fn tend_pool(&self) -> bool {
        self.forks.prefault_next();
        let plan = self.forks.plan();
        self.stop_all(plan.stop);
        let mut made = false;
        for (id, template) in plan.make {
            if self.closing.is_cancelled() {
                return false;
            }
            let attached = match self.try_attach(template.shape.network).await {
                Ok(attached) => attached,
                // Nothing is wrong with the template: executions have all the addresses.
                Err(error) => {
                    tracing::debug!(template = id, %error, "no network for a fork that would wait");
                    continue;
                }
            };
            match self.pause_fork(&template, attached).await {
                Ok(paused) => {
                    made = true;
                    let pid = paused.fork.pid();
                    let kib = tokio::task::spawn_blocking(move || private_kib(pid)).await;
                    if let Ok(Some(kib)) = kib {
                        self.forks.measured(&id, kib);
                    }
                    self.forks.made(&id);
                    self.stop_all(self.forks.put(&id, paused).into_iter().collect());
                }
                Err(death) => self.fork_failed(&id, &death),
            }
        }
        made
    }

    /// Stops every fork and build, and waits until nothing of them is left.
    pub(super) async fn close_pool(&self) {
        self.closing.cancel();
        self.stop_all(self.forks.clear());
        self.tasks.close();
        self.tasks.wait().await;
        // What was made while it closed.
        for paused in self.forks.clear() {
            paused.stop(&self.store).await;
        }
    }

    pub(super) async fn spawn_worker(&self) -> Result<Worker, Death> {
        let path = &self.config.vm.worker;
        Worker::spawn(path).await.map_err(|error| {
            Death::infrastructure(format!("starting `{}`: {error}", path.display()))
        })
    }
}
