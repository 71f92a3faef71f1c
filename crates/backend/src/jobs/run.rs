//! One execution, from the queue to its result.

use std::any::Any;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloude_engine::images::ReadyImage;
use cloude_engine::{Demand, Failure, MachineSpec};
use cloude_protocol::agent::{Cause, ExecuteResult};
use cloude_protocol::api::{Execution, StartChoice, StartKind, Status, Timings};
use cloude_protocol::network::NetworkReport;

use super::admission::{Admitted, check_image, template_owner};
use super::artifacts::Artifacts;
use super::attempt::{Attempt, Teardown, attempt};
use super::compile::compile;
use super::job::Job;
use super::outcome::ExecutionParts;
use super::program::{Compiled, Program};
use super::service::Parts;
use crate::scheduler::{QueueSlot, VmPermit};

/// VMs that an execution may use: a fork that fails before it ran anything is replaced. The last one is booted.
const ATTEMPTS: u32 = 3;

/// Runs an execution. Failures are part of the result. The VM still exists on return: clients receive the result
/// before the teardown.
pub async fn run(
    parts: Arc<Parts>,
    job: Arc<Job>,
    admitted: Admitted,
    slot: QueueSlot,
    arrived: Instant,
) -> (Arc<Execution>, Teardown) {
    let mut run = Run {
        parts: &parts,
        job: &job,
        timings: Timings::default(),
        ip: None,
        network: None,
        start: StartKind::Cold,
        image: None,
        is_compile_shared: false,
        artifacts: Artifacts::default(),
    };
    let memory_mib = admitted.memory_mib;
    let (result, teardown) = run.result(admitted, slot, arrived).await;
    run.timings.total_us = micros(arrived.elapsed());
    let Run {
        timings,
        ip,
        network,
        start,
        image,
        is_compile_shared,
        artifacts,
        ..
    } = run;
    // The launcher does not know who cancelled the execution; the job does.
    let result = result.map_err(|failure| match failure.cause {
        Cause::Cancelled => job.cancelled(),
        _ => failure,
    });
    let execution = job.end(artifacts.contents, |transcript| {
        let parts = ExecutionParts {
            about: &job.about,
            image,
            result,
            is_compile_shared,
            artifacts: artifacts.list,
            artifacts_dropped: artifacts.dropped,
            transcript,
            timings,
            ip,
            network,
            start,
            memory_mib,
        };
        parts.execution()
    });
    (execution, teardown)
}

/// The result of an execution whose task panicked.
pub fn panicked(job: &Job, panic: &(dyn Any + Send)) -> Arc<Execution> {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    tracing::error!(
        id = job.about.id,
        panic = text,
        "an execution's task panicked"
    );
    job.end(Vec::new(), |transcript| {
        let parts = ExecutionParts {
            about: &job.about,
            image: None,
            is_compile_shared: false,
            artifacts: Vec::new(),
            artifacts_dropped: 0,
            result: Err(Failure::infrastructure(format!(
                "clouded failed while it ran this execution (panic: {text}); see the server's log"
            ))),
            transcript,
            timings: Timings::default(),
            ip: None,
            network: None,
            start: StartKind::Cold,
            memory_mib: 0,
        };
        parts.execution()
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Logs a finished execution.
pub fn report(execution: &Execution) {
    let Execution {
        id,
        language,
        cause,
        exit_code,
        signal,
        timings,
        error,
        ..
    } = execution;
    let ms = |us: u64| us / 1000;
    tracing::info!(
        id,
        language,
        ?cause,
        exit_code,
        signal,
        queue_ms = ms(timings.queue_us),
        start_ms = ms(timings.start_us),
        identity_ms = ms(timings.identity_us),
        compile_ms = ms(timings.compile_us),
        run_ms = ms(timings.run_us),
        total_ms = ms(timings.total_us),
        error,
        "executed"
    );
}

struct Run<'a> {
    parts: &'a Parts,
    job: &'a Job,
    timings: Timings,
    ip: Option<Ipv4Addr>,
    network: Option<NetworkReport>,
    start: StartKind,
    image: Option<ReadyImage>,
    is_compile_shared: bool,
    artifacts: Artifacts,
}

impl Run<'_> {
    async fn result(
        &mut self,
        mut admitted: Admitted,
        slot: QueueSlot,
        arrived: Instant,
    ) -> (Result<ExecuteResult, Failure>, Teardown) {
        let cancelled = self.job.cancel.clone();
        let compiles = admitted.execute.compile.is_some();
        let program = admitted.program.take().filter(|_| compiles);
        let ready = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(self.job.cancelled()),
            ready = self.ready(&admitted, program.as_deref(), slot, arrived) => ready,
        };
        let (image, permit, compiled) = match ready {
            Ok(ready) => ready,
            Err(failure) => return (Err(failure), Teardown::default()),
        };
        if let Some(compiled) = compiled {
            self.job.update(|progress| {
                for event in &compiled.events {
                    progress.transcript.push(event);
                }
            });
            if !compiled.has_succeeded() {
                let result = ExecuteResult {
                    compile: Some(compiled.result.clone()),
                    ..ExecuteResult::default()
                };
                let mut teardown = Teardown::default();
                teardown.permit = Some(permit);
                return (Ok(result), teardown);
            }
            compiled.apply(&mut admitted.execute);
        }
        let (mut result, mut teardown) = self.in_machine(admitted, image).await;
        if let (Some(compiled), Ok(result)) = (compiled, &mut result) {
            result.compile = Some(compiled.result.clone());
        }
        teardown.permit = Some(permit);
        (result, teardown)
    }

    /// Waits for the image, the compiled program if the execution shares one, and the VM permit.
    async fn ready<'p>(
        &mut self,
        admitted: &Admitted,
        program: Option<&'p Program>,
        slot: QueueSlot,
        arrived: Instant,
    ) -> Result<(PathBuf, VmPermit, Option<&'p Compiled>), Failure> {
        let parts = self.parts;
        let ensured = parts
            .images
            .ensure(&admitted.language, admitted.memory_mib)
            .await;
        let image = ensured.map_err(Failure::infrastructure)?;
        check_image(admitted, &image)
            .map_err(|refused| Failure::infrastructure(refused.to_string()))?;
        let path = image.path.clone();
        self.image = Some(image);
        let Some(program) = program else {
            let permit = self.permit(admitted, slot, arrived).await;
            return Ok((path, permit, None));
        };
        // The execution that compiles uses its permit for that first; the others queue for theirs when it is done.
        let (mut slot, mut permit) = (Some(slot), None);
        let compiled = program.compiled(&admitted.execute, async {
            if let Some(slot) = slot.take() {
                permit = Some(self.permit(admitted, slot, arrived).await);
            }
            let spec = self.spec(admitted, path.clone());
            compile(parts, spec, &admitted.execute, &self.job.cancel).await
        });
        let compiled = compiled.await;
        self.is_compile_shared = compiled.is_some() && permit.is_none();
        if let Some(slot) = slot {
            permit = Some(self.permit(admitted, slot, arrived).await);
        }
        let permit = permit.ok_or_else(|| Failure::infrastructure("no permit for a VM"))?;
        Ok((path, permit, compiled))
    }

    /// Waits for a VM permit. The execution runs from then on.
    async fn permit(&mut self, admitted: &Admitted, slot: QueueSlot, arrived: Instant) -> VmPermit {
        let memory_mib = admitted.memory_mib;
        let demand = Demand {
            memory_mib: (self.parts).vm_memory_mib(memory_mib, admitted.result_bytes()),
            vcpus: usize::from(admitted.vcpus),
        };
        let permit = slot.admitted(demand).await;
        self.timings.queue_us = micros(arrived.elapsed());
        self.job
            .update(|progress| progress.status = Status::Running);
        if self.job.is_durable() {
            // Written before the VM starts, so that an execution that crashes clouded is counted. The store retries
            // a failed write, and GET /health reports it.
            let _ = self.parts.store.started(&self.job.about.id).await;
        }
        permit
    }

    fn spec(&self, admitted: &Admitted, image: PathBuf) -> MachineSpec {
        MachineSpec {
            id: self.job.about.id.clone(),
            image,
            language: Arc::clone(&admitted.language),
            vcpus: admitted.vcpus,
            memory_mib: admitted.memory_mib,
            network: admitted.network,
            template_owner: template_owner(&self.parts.config, &self.job.about.tenant),
            start: admitted.start,
        }
    }

    /// Launches a VM and runs the execution in it. Replaces forks that fail before the program began.
    async fn in_machine(
        &mut self,
        mut admitted: Admitted,
        image: PathBuf,
    ) -> (Result<ExecuteResult, Failure>, Teardown) {
        let mut spec = self.spec(&admitted, image);
        for number in 1.. {
            let starting = Instant::now();
            let launcher = &self.parts.launcher;
            let launched = launcher.launch(spec.clone(), self.job.cancel.clone());
            let started = match launched.await {
                Ok(started) => started,
                Err(failure) => return (Err(failure), Teardown::default()),
            };
            self.timings.start_us = micros(starting.elapsed());
            self.ip = started.ip;
            self.start = started.start;
            let template = started.template.clone();
            let Attempt {
                result,
                artifacts,
                began,
                refused,
                identity,
                network,
                teardown,
            } = attempt(self.parts, self.job, started, &mut admitted).await;
            self.timings.identity_us = micros(identity);
            self.network = network;
            self.timings.collect_us = micros(artifacts.time);
            self.artifacts = artifacts;
            let (Some(template), Err(failure)) = (&template, &result) else {
                return (result, teardown);
            };
            // The next attempt is another fork; the last one is a booted VM, unless the client chose the start. A
            // request that the agent refuses is not repeated: every fork would refuse it.
            if began || refused || failure.cause == Cause::Cancelled || number == ATTEMPTS {
                return (result, teardown);
            }
            launcher.report_fork(template, Err(failure));
            teardown.end().await;
            if number + 1 == ATTEMPTS && spec.start.is_none() {
                spec.start = Some(StartChoice::Cold);
            }
        }
        unreachable!("the last attempt returns")
    }
}
