//! One execution, from the queue to its result.

use std::any::Any;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloude_engine::guest::new_identity;
use cloude_engine::guest::{self, Connection};
use cloude_engine::{Demand, Failure, Launched, Machine, MachineSpec};
use cloude_protocol::agent::{Cause, Event, ExecuteResult, StageName, Stream};
use cloude_protocol::api::{Execution, StartChoice, StartKind, Status, Timings};

use super::admission::Admitted;
use super::outcome::Ending;
use super::{Client, Job, Parts};
use crate::scheduler::{QueueSlot, VmPermit};
use cloude_engine::images::ReadyImage;

/// How long a broken connection waits for the VM's own word on why, at most.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A guest may send so much more than its limit says before it is cut off: a stream's head and tail
/// are each rounded to whole chunks. Bytes.
const OUTPUT_SLACK: u64 = 256 << 10;
/// In so many VMs, if forks fail before they do anything: the last of them is booted.
const ATTEMPTS: u32 = 3;

/// What is left to be done about an execution whose result is known.
#[must_use = "the machine has to be stopped"]
#[derive(Default)]
pub struct Teardown {
    machine: Option<Box<dyn Machine>>,
    connection: Option<Connection>,
    permit: Option<VmPermit>,
}

impl Teardown {
    fn of(machine: Box<dyn Machine>) -> Self {
        Teardown {
            machine: Some(machine),
            ..Teardown::default()
        }
    }

    /// Stops the machine. The end of a VM takes KVM many milliseconds; its memory and its place are free only
    /// then.
    pub async fn end(self) {
        if let Some(machine) = self.machine {
            machine.stop().await;
        }
        drop(self.connection);
        drop(self.permit);
    }
}

/// Carries it out. Never fails: what goes wrong is the result, which nobody sees before it is published. Its
/// machine is still there then, which nobody who waits for the result needs to wait for.
pub async fn run(
    parts: Arc<Parts>,
    job: Arc<Job>,
    admitted: Admitted,
    place: QueueSlot,
    arrived: Instant,
) -> (Arc<Execution>, Teardown) {
    let mut run = Run {
        parts: &parts,
        job: &job,
        timings: Timings::default(),
        ip: None,
        start: StartKind::Cold,
        image: None,
    };
    let memory_mib = admitted.memory_mib;
    let (result, teardown) = run.result(admitted, place, arrived).await;
    run.timings.total_us = micros(arrived.elapsed());
    let Run {
        timings,
        ip,
        start,
        image,
        ..
    } = run;
    // The launcher does not know who cancelled.
    let result = result.map_err(|death| match death.cause {
        Cause::Cancelled => job.cancelled(),
        _ => death,
    });
    let mut transcript = job.update(|progress| {
        progress.transcript.settle();
        match job.client {
            // The result alone needs it.
            Client::Waits => std::mem::take(&mut progress.transcript),
            Client::Streams | Client::Leaves => progress.transcript.clone(),
        }
    });
    let ending = Ending {
        id: &job.id,
        language: &job.language,
        image,
        result,
        transcript: &mut transcript,
        timings,
        ip,
        start,
        memory_mib,
    };
    (Arc::new(ending.execution()), teardown)
}

/// The result where carrying it out panicked.
pub fn panicked(job: &Job, panic: &(dyn Any + Send)) -> Arc<Execution> {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    tracing::error!(id = job.id, panic = text, "an execution's task panicked");
    let ending = Ending {
        id: &job.id,
        language: &job.language,
        image: None,
        result: Err(Failure::infrastructure(format!(
            "clouded failed while it ran this execution (panic: {text}); see the server's log"
        ))),
        transcript: &mut job.update(|progress| progress.transcript.clone()),
        timings: Timings::default(),
        ip: None,
        start: StartKind::Cold,
        memory_mib: 0,
    };
    Arc::new(ending.execution())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Writes it to the log.
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
    start: StartKind,
    image: Option<ReadyImage>,
}

impl Run<'_> {
    async fn result(
        &mut self,
        admitted: Admitted,
        place: QueueSlot,
        arrived: Instant,
    ) -> (Result<ExecuteResult, Failure>, Teardown) {
        let cancelled = self.job.cancel.clone();
        let demand = Demand {
            memory_mib: self.parts.vm_memory_mib(admitted.memory_mib),
            vcpus: usize::from(admitted.vcpus),
        };
        let ready = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(self.job.cancelled()),
            ready = async {
                let image = self.parts.images.ensure(&admitted.language, admitted.memory_mib).await;
                let image = image.map_err(Failure::infrastructure)?;
                Ok::<_, Failure>((image, place.admitted(demand).await))
            } => ready,
        };
        let (image, permit) = match ready {
            Ok(ready) => ready,
            Err(death) => return (Err(death), Teardown::default()),
        };
        self.timings.queue_us = micros(arrived.elapsed());
        self.job
            .update(|progress| progress.status = Status::Running);
        if self.job.client == Client::Leaves {
            // Before there is a VM: an execution that takes this process down with it has to be counted. Where
            // that cannot be written it is tried again, and GET /health says so.
            let _ = self.parts.store.started(&self.job.id).await;
        }
        let path = image.path.clone();
        self.image = Some(image);
        let (result, mut teardown) = self.in_machine(admitted, path).await;
        teardown.permit = Some(permit);
        (result, teardown)
    }

    /// With the machine that is to be stopped, if one was started.
    async fn in_machine(
        &mut self,
        mut admitted: Admitted,
        image: PathBuf,
    ) -> (Result<ExecuteResult, Failure>, Teardown) {
        let mut spec = MachineSpec {
            id: self.job.id.clone(),
            image,
            language: Arc::clone(&admitted.language),
            vcpus: admitted.vcpus,
            memory_mib: admitted.memory_mib,
            network: admitted.network,
            start: admitted.start,
        };
        for attempt in 1.. {
            let starting = Instant::now();
            let launcher = &self.parts.launcher;
            let launched = launcher.launch(spec.clone(), self.job.cancel.clone());
            let started = match launched.await {
                Ok(started) => started,
                Err(death) => return (Err(death), Teardown::default()),
            };
            self.timings.start_us = micros(starting.elapsed());
            self.ip = started.ip;
            self.start = started.start;
            let template = started.template.clone();
            let Outcome {
                result,
                began,
                refused,
                identity,
                teardown,
            } = self.attempt(started, &mut admitted).await;
            self.timings.identity_us = micros(identity);
            let (Some(template), Err(death)) = (&template, &result) else {
                return (result, teardown);
            };
            // A fork that failed before it did anything is replaced: by another one, then by a VM that
            // is booted, unless the client wants none of that. A request that the agent refuses would be
            // refused by the next fork, too, and says nothing about the template.
            if began || refused || death.cause == Cause::Cancelled || attempt == ATTEMPTS {
                return (result, teardown);
            }
            launcher.report_fork(template, Err(death));
            teardown.end().await;
            if attempt + 1 == ATTEMPTS && spec.start.is_none() {
                spec.start = Some(StartChoice::Cold);
            }
        }
        unreachable!("the last attempt returns")
    }

    /// In one VM.
    async fn attempt(&self, started: Launched, admitted: &mut Admitted) -> Outcome {
        let Launched {
            stream,
            token,
            template,
            network,
            mut machine,
            ..
        } = started;
        // Now and not before: it has the time in it.
        admitted.execute.identity = match &template {
            Some(_) => match new_identity(&self.job.id, network) {
                Ok(identity) => Some(identity),
                Err(error) => {
                    let death = Failure::infrastructure(format!("an identity: {error}"));
                    return Outcome {
                        result: Err(death),
                        began: false,
                        refused: false,
                        identity: Duration::ZERO,
                        teardown: Teardown::of(machine),
                    };
                }
            },
            None => None,
        };
        let mut relay = Relay::new(self.job, admitted.execute.run.output_bytes);
        let result = self
            .exchange(stream, &token, admitted, machine.as_mut(), &mut relay)
            .await;
        let (began, refused, identity) = (relay.began, relay.refused, relay.identity);
        let mut teardown = Teardown::of(machine);
        let result = result.and_then(|connection| {
            teardown.connection = Some(connection);
            relay.result()
        });
        if let Some(template) = template.filter(|_| began) {
            self.parts.launcher.report_fork(&template, Ok(()));
        }
        Outcome {
            result,
            began,
            refused,
            identity,
            teardown,
        }
    }

    async fn exchange(
        &self,
        stream: Box<dyn cloude_engine::AgentStream>,
        token: &str,
        admitted: &Admitted,
        machine: &mut dyn Machine,
        relay: &mut Relay<'_>,
    ) -> Result<Connection, Failure> {
        let exchange = guest::execute(stream, token, &admitted.execute, |event| relay.take(event));
        let error = tokio::select! {
            biased;
            result = exchange => match result {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            },
            () = self.job.cancel.cancelled() => return Err(self.job.cancelled()),
            death = machine.failed() => return Err(death),
            () = tokio::time::sleep(self.deadline(admitted)) => {
                return Err(Failure::infrastructure("the VM did not answer within its wall-clock limits"));
            }
        };
        relay.refused = error.is_refused_request();
        if !error.is_connection() {
            return Err(Failure::infrastructure(error.to_string()));
        }
        // Usually the VM died under the connection; its own word is the better explanation.
        match tokio::time::timeout(LAST_WORDS, machine.failed()).await {
            Ok(death) => Err(death),
            Err(_) => Err(Failure::infrastructure(error.to_string())),
        }
    }

    fn deadline(&self, admitted: &Admitted) -> Duration {
        let compile = admitted
            .execute
            .compile
            .as_ref()
            .map_or(0, |stage| stage.wall_time_ms);
        let limits = compile + admitted.execute.run.wall_time_ms;
        Duration::from_millis(limits + self.parts.config.agent.grace_ms)
    }
}

/// How it went in one VM.
struct Outcome {
    result: Result<ExecuteResult, Failure>,
    /// Whether the agent has said anything of the program: from then on it may have done something.
    began: bool,
    /// The agent refused the request itself, which is neither the VM's fault nor its template's.
    refused: bool,
    /// How long a fork took to acknowledge its identity.
    identity: Duration,
    teardown: Teardown,
}

/// Takes the agent's events into the job.
struct Relay<'a> {
    job: &'a Job,
    since: Instant,
    began: bool,
    refused: bool,
    identity: Duration,
    output_bytes: u64,
    result: Option<ExecuteResult>,
    excess: bool,
}

impl<'a> Relay<'a> {
    fn new(job: &'a Job, output_bytes: u64) -> Self {
        Relay {
            job,
            since: Instant::now(),
            began: false,
            refused: false,
            identity: Duration::ZERO,
            output_bytes,
            result: None,
            excess: false,
        }
    }

    fn take(&mut self, event: Event) {
        if let Event::Identity = event {
            self.identity = self.since.elapsed();
            return;
        }
        self.began = true;
        if let Event::Output {
            stage,
            stream,
            data,
        } = &event
            && self.is_excess(*stage, *stream, data.0.len())
        {
            self.excess = true;
            return;
        }
        if let Event::Finished(result) = event {
            self.result = Some(result);
            return;
        }
        self.job.update(|progress| progress.transcript.push(&event));
    }

    /// The agent keeps to the limit; whoever has taken its place may not.
    fn is_excess(&self, stage: StageName, stream: Stream, more: usize) -> bool {
        let limit = self.output_bytes.saturating_add(OUTPUT_SLACK);
        self.job.progress().transcript.len(stage, stream) + more as u64 > limit
    }

    fn result(self) -> Result<ExecuteResult, Failure> {
        if self.excess {
            return Err(Failure::infrastructure(
                "the guest sent more output than its limit",
            ));
        }
        self.result
            .ok_or_else(|| Failure::infrastructure("the agent's answer ended without a result"))
    }
}
