//! One attempt at an execution, in one VM: the request to its agent, and the events that the agent answers.

use std::time::{Duration, Instant};

use cloude_engine::guest::{self, Connection, new_identity};
use cloude_engine::{AgentStream, Failure, Launched, Machine};
use cloude_protocol::agent::{Event, ExecuteResult, StageName, Stream};

use super::admission::Admitted;
use super::{Job, Parts};
use crate::scheduler::VmPermit;

/// Maximum time that a broken connection waits for the VM's failure, which explains more than the I/O error.
const FAILURE_WAIT: Duration = Duration::from_secs(2);
/// Bytes that a stream may exceed its limit by: the agent rounds its head and its tail to whole chunks.
const OUTPUT_SLACK: u64 = 256 << 10;

/// The resources of an execution that are released after its result is known. The default holds none.
#[must_use = "the VM has to be stopped"]
#[derive(Default)]
pub struct Teardown {
    machine: Option<Box<dyn Machine>>,
    connection: Option<Connection>,
    pub permit: Option<VmPermit>,
}

impl Teardown {
    fn of(machine: Box<dyn Machine>) -> Self {
        Teardown {
            machine: Some(machine),
            ..Teardown::default()
        }
    }

    /// Stops the VM, then releases its permit. KVM takes many milliseconds to destroy a VM, and its memory is not
    /// free before that.
    pub async fn end(self) {
        if let Some(machine) = self.machine {
            machine.stop().await;
        }
        drop(self.connection);
        drop(self.permit);
    }
}

/// The outcome of one attempt.
pub struct Attempt {
    pub result: Result<ExecuteResult, Failure>,
    /// The agent has reported an event of the program: side effects are possible, so it must not run again.
    pub began: bool,
    /// The agent refused the request itself, which is a fault of neither the VM nor its template.
    pub refused: bool,
    /// Time until a fork acknowledged its identity.
    pub identity: Duration,
    pub teardown: Teardown,
}

/// Runs the execution in a VM that was launched for it.
pub async fn attempt(
    parts: &Parts,
    job: &Job,
    started: Launched,
    admitted: &mut Admitted,
) -> Attempt {
    let Launched {
        stream,
        token,
        template,
        network,
        mut machine,
        ..
    } = started;
    if template.is_some() {
        // Created here and not earlier, because it holds the time of day.
        match new_identity(&job.id, network) {
            Ok(identity) => admitted.execute.identity = Some(identity),
            Err(error) => return no_identity(&error, machine),
        }
    } else {
        admitted.execute.identity = None;
    }
    let mut events = Events::new(job, admitted.execute.run.output_bytes);
    let result = exchange(
        (parts, job),
        (stream, &token),
        admitted,
        machine.as_mut(),
        &mut events,
    )
    .await;
    let (began, refused, identity) = (events.began, events.refused, events.identity);
    let mut teardown = Teardown::of(machine);
    let result = result.and_then(|connection| {
        teardown.connection = Some(connection);
        events.result()
    });
    if let Some(template) = template.filter(|_| began) {
        parts.launcher.report_fork(&template, Ok(()));
    }
    Attempt {
        result,
        began,
        refused,
        identity,
        teardown,
    }
}

fn no_identity(error: &dyn std::fmt::Display, machine: Box<dyn Machine>) -> Attempt {
    let failure = Failure::infrastructure(format!("creating the fork's identity: {error}"));
    Attempt {
        result: Err(failure),
        began: false,
        refused: false,
        identity: Duration::ZERO,
        teardown: Teardown::of(machine),
    }
}

/// Sends the request and reads the answer, until it ends, the VM fails, the execution is cancelled or its time is
/// over.
async fn exchange(
    (parts, job): (&Parts, &Job),
    (stream, token): (Box<dyn AgentStream>, &str),
    admitted: &Admitted,
    machine: &mut dyn Machine,
    events: &mut Events<'_>,
) -> Result<Connection, Failure> {
    let exchange = guest::execute(stream, token, &admitted.execute, |event| events.take(event));
    let error = tokio::select! {
        biased;
        result = exchange => match result {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        },
        () = job.cancel.cancelled() => return Err(job.cancelled()),
        failure = machine.failed() => return Err(failure),
        () = tokio::time::sleep(deadline(parts, admitted)) => {
            return Err(Failure::infrastructure("the VM did not answer within its wall-clock limits"));
        }
    };
    events.refused = error.is_refused_request();
    if !error.is_connection() {
        return Err(Failure::infrastructure(error.to_string()));
    }
    // The usual reason is that the VM failed, and its failure has the cause.
    match tokio::time::timeout(FAILURE_WAIT, machine.failed()).await {
        Ok(failure) => Err(failure),
        Err(_) => Err(Failure::infrastructure(error.to_string())),
    }
}

/// The wall-clock limits of all stages, and `agent.grace_ms`.
fn deadline(parts: &Parts, admitted: &Admitted) -> Duration {
    let compile = admitted.execute.compile.as_ref();
    let compile_ms = compile.map_or(0, |stage| stage.wall_time_ms);
    let limits_ms = compile_ms + admitted.execute.run.wall_time_ms;
    Duration::from_millis(limits_ms + parts.config.agent.grace_ms)
}

/// Adds the agent's events to the job's transcript.
struct Events<'a> {
    job: &'a Job,
    since: Instant,
    began: bool,
    refused: bool,
    identity: Duration,
    output_bytes: u64,
    result: Option<ExecuteResult>,
    excess: bool,
}

impl<'a> Events<'a> {
    fn new(job: &'a Job, output_bytes: u64) -> Self {
        Events {
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

    /// True if the stream would exceed its limit. The agent respects the limit; a guest kernel that was taken over may
    /// not.
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
