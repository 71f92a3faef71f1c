//! How a launcher forks templates.

use std::sync::Arc;

use cloude_protocol::agent::NetworkIdentity;
use cloude_protocol::api::{StartChoice, StartKind};
use tokio_util::sync::CancellationToken;

use super::booting::open_kvm;
use super::console::Console;
use super::control::Worker;
use super::fork::{Fork, Parts, Shell};
use super::launcher::VmLauncher;
use super::machine::Vm;
use super::pool::{Ask, Found, Paused, Template};
use super::{AgentStream, Death, MEMORY_STEP_MIB, MachineSpec, Started, orphans};
use crate::network::Attached;

impl VmLauncher {
    /// Whether executions like this one are forked at all.
    pub(super) fn forks_for(&self, spec: &MachineSpec) -> bool {
        self.config.pool.enabled && spec.start != Some(StartChoice::Cold)
    }

    /// Whether the machine is the one that its language has unless a request says otherwise.
    pub(super) fn is_default_machine(&self, spec: &MachineSpec) -> bool {
        let (machine, vm) = (&spec.language.machine, &self.config.vm);
        let memory_mib = machine.memory_mib.unwrap_or(vm.memory_mib);
        spec.vcpus == machine.vcpus.unwrap_or(vm.vcpus)
            && spec.memory_mib == memory_mib.next_multiple_of(MEMORY_STEP_MIB)
    }

    /// A fork of the spec's template; none if the execution is to be booted: the template is being built, or
    /// none is built of such a machine. Where the spec insists on a fork, it waits for the build.
    pub(super) async fn fork(
        &self,
        spec: &MachineSpec,
        cancel: &CancellationToken,
    ) -> Result<Option<Started>, Death> {
        let must = spec.start == Some(StartChoice::Fork);
        let ask = Ask {
            default_machine: self.is_default_machine(spec),
            must,
        };
        let mut changes = self.forks.changes();
        loop {
            changes.mark_unchanged();
            // Each time: what it is of may be replaced while this waits.
            let key = self.template_key(spec).await?;
            let id = key.id();
            match self.forks.find(&id, ask) {
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
                Found::Begin(covered) => {
                    // Our own permit covers the build where we wait for it. Otherwise no client waits for it.
                    let place = (!must).then(|| self.scheduler.enter_uncounted());
                    self.build_template_of(key, spec, place, covered);
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
                Found::Failed(_) | Found::None => return Ok(None),
                Found::Building if !must => return Ok(None),
                Found::Building => tokio::select! {
                    () = cancel.cancelled() => return Err(Death::cancelled("cancelled")),
                    () = self.closing.cancelled() => return Err(Death::shutting_down()),
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
            self.reserve_memory();
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
        orphans::record(&self.store, pid, attached.as_deref().map(Attached::ip));
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
            console: paused.console,
            ..self.new_vm(paused.attached)
        };
        Ok((vm, stream, network))
    }

    pub(super) async fn spawn_worker(&self) -> Result<Worker, Death> {
        let path = &self.config.vm.worker;
        Worker::spawn(path).await.map_err(|error| {
            Death::infrastructure(format!("starting `{}`: {error}", path.display()))
        })
    }
}
