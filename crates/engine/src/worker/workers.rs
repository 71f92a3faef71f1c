//! Starts VMs: cold boots, and forks of templates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloude_protocol::agent::NetworkIdentity;
use tokio_util::sync::CancellationToken;

use super::blank::{BlankVm, BlankVmParts};
use super::boot::{BootFiles, send_boot, tap_spec};
use super::console::Console;
use super::kvm::open_kvm;
use super::paused::{PausedFork, PooledFork};
use super::process::Worker;
use super::segment::SharedSegment;
use super::vm::{Vm, no_firewall};
use crate::config::{EngineConfig, Transport};
use crate::error::Failure;
use crate::guest::new_token;
use crate::isolation::{Limits, Prison};
use crate::machine::{AgentStream, MachineShape, MachineSpec};
use crate::network::{Attached, release};
use crate::run_dir::RunDir;
use crate::snapshot::Template;

/// A booted VM whose agent is ready.
pub struct Booted {
    /// The VM.
    pub vm: Vm,
    /// The connection to its agent.
    pub stream: Box<dyn AgentStream>,
    /// The token that the agent accepts.
    pub token: String,
}

/// The owner of all workers.
pub struct Workers {
    config: Arc<EngineConfig>,
    segment: Arc<SharedSegment>,
    prison: Arc<Prison>,
    run_dir: RunDir,
    /// Each running VM holds a clone.
    running: Arc<()>,
}

impl Workers {
    /// No worker yet.
    pub fn new(
        config: Arc<EngineConfig>,
        segment: Arc<SharedSegment>,
        prison: Arc<Prison>,
        run_dir: RunDir,
    ) -> Self {
        Workers {
            config,
            segment,
            prison,
            run_dir,
            running: Arc::default(),
        }
    }

    /// The number of running VMs; paused forks do not count.
    pub fn running(&self) -> usize {
        Arc::strong_count(&self.running) - 1
    }

    /// Boots a VM and waits until its agent is ready. With `template` the agent is set up to be saved, and is
    /// reached over vsock whatever the transport: its forks go on with that connection. A VM that failed or
    /// was cancelled is gone when this returns.
    pub async fn boot(
        &self,
        spec: &MachineSpec,
        attached: Option<Attached>,
        template: bool,
        cancel: &CancellationToken,
    ) -> Result<Booted, Failure> {
        let worker = match self.spawn(spec.shape(), template).await {
            Ok(worker) => worker,
            Err(failure) => {
                release(attached).await;
                return Err(failure);
            }
        };
        let mut vm = Vm::new(worker, attached, Console::default(), &self.running);
        let timeout = Duration::from_millis(self.config.agent.boot_timeout_ms);
        let booted = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::cancelled("cancelled")),
            booted = tokio::time::timeout(timeout, self.boot_in(&mut vm, spec, template)) => {
                booted.unwrap_or_else(|_| Err(self.too_slow()))
            }
        };
        match booted {
            Ok((stream, token)) => Ok(Booted { vm, stream, token }),
            Err(failure) => {
                let failure = vm.explain(failure);
                vm.end().await;
                Err(failure)
            }
        }
    }

    async fn boot_in(
        &self,
        vm: &mut Vm,
        spec: &MachineSpec,
        template: bool,
    ) -> Result<(Box<dyn AgentStream>, String), Failure> {
        let failed =
            |error: std::io::Error| Failure::infrastructure(format!("preparing the VM: {error}"));
        let token = new_token().map_err(failed)?;
        let (console, console_end) =
            Console::open(&spec.id, self.config.vm.log_guest_console).map_err(failed)?;
        vm.set_console(console);
        let segment = self.segment.get().await?;
        let files = BootFiles {
            segment: &segment.file,
            console: console_end,
        };
        send_boot(&self.config, vm, spec, &token, files, template)?;
        let stream = match self.config.agent.transport {
            Transport::Ip if !template => vm.connect_ip().await?,
            _ => vm.connect_vsock().await?,
        };
        Ok((stream, token))
    }

    fn too_slow(&self) -> Failure {
        let seconds = self.config.agent.boot_timeout_ms as f64 / 1000.0;
        Failure::infrastructure(format!(
            "the guest was not ready within {seconds} s; on a slow host raise `time_factor` \
             (CLOUDE_TIME_FACTOR), or `agent.boot_timeout_ms` alone"
        ))
    }

    /// Forks a template; the fork stays paused. Includes the blank VM: some milliseconds. The address is
    /// released when this fails.
    pub async fn fork(
        &self,
        template: &Arc<Template>,
        mut attached: Option<Attached>,
    ) -> Result<PooledFork, Failure> {
        match self.fork_in(template, attached.as_mut()).await {
            Ok((fork, console)) => Ok(PooledFork {
                fork,
                attached,
                console,
                template: Arc::clone(template),
            }),
            Err(failure) => {
                // The worker has ended: `fork_in` dropped it.
                release(attached).await;
                Err(failure)
            }
        }
    }

    async fn fork_in(
        &self,
        template: &Template,
        attached: Option<&mut Attached>,
    ) -> Result<(PausedFork, Console), Failure> {
        let failed = |error: std::io::Error| Failure::infrastructure(format!("a fork: {error}"));
        let (console, console_end) =
            Console::open("fork", self.config.vm.log_guest_console).map_err(failed)?;
        let kvm = open_kvm()?;
        let worker = self.spawn(template.shape, false).await?;
        let parts = BlankVmParts {
            kvm,
            tap: attached.and_then(|attached| {
                let spec = tap_spec(&self.config, attached);
                Some((spec, attached.take_tap()?))
            }),
            console: console_end,
            cpu_baseline: self.config.vm.cpu_baseline,
        };
        let blank = BlankVm::create(worker, template.shape, parts).await?;
        let fork = blank
            .restore(&template.snapshot, template.working_set.get())
            .await?;
        let costs = fork.costs();
        tracing::debug!(
            pid = fork.pid(),
            ioctls = costs.ioctls,
            minor_faults = costs.minor_faults,
            restore_us = costs.elapsed_us,
            "forked a template"
        );
        Ok((fork, console))
    }

    /// Resumes a paused fork. Its agent waits for an identity on the returned stream.
    pub async fn resume(
        &self,
        fork: PooledFork,
    ) -> Result<(Vm, Box<dyn AgentStream>, Option<NetworkIdentity>), Failure> {
        let PooledFork {
            fork,
            attached,
            console,
            ..
        } = fork;
        if let Some(reason) = attached.as_ref().and_then(Attached::broken) {
            fork.stop().await;
            release(attached).await;
            return Err(no_firewall(&reason));
        }
        let (worker, stream) = match fork.resume() {
            Ok(resumed) => resumed,
            Err(failure) => {
                release(attached).await;
                return Err(failure);
            }
        };
        let network = attached.as_ref().map(Attached::identity);
        let vm = Vm::new(worker, attached, console, &self.running);
        Ok((vm, stream, network))
    }

    /// Starts a worker in its jail. `saved`: its VM will be a template.
    async fn spawn(&self, shape: MachineShape, saved: bool) -> Result<Worker, Failure> {
        let path: &Path = &self.config.vm.worker;
        let limits = Limits::of(shape.vcpus, shape.memory_mib, saved);
        let prison = Arc::clone(&self.prison);
        let worker = Worker::spawn(path, move || prison.cell(&limits)).await;
        let worker = worker.map_err(|error| {
            Failure::infrastructure(format!("starting `{}`: {error}", path.display()))
        })?;
        // Off the async threads: the directory lies on a disk. A dropped future drops the file, which removes it.
        let (run_dir, pid) = (self.run_dir.clone(), worker.pid());
        let file = tokio::task::spawn_blocking(move || run_dir.record(pid)).await;
        Ok(worker.with_file(file.ok().flatten()))
    }
}
