//! One attempt at an execution, in one VM: the request to its agent, and the events that the agent answers.

use std::time::{Duration, Instant};

use cloude_engine::guest::{self, Connection, InputSender, new_identity};
use cloude_engine::{Failure, Launched, Machine};
use cloude_protocol::agent::{Event, ExecuteResult, Identity, NetworkIdentity, StageName};
use cloude_protocol::network::NetworkReport;

use super::admission::Admitted;
use super::artifacts::{Artifacts, Collector};
use super::job::Job;
use super::service::Parts;
use crate::scheduler::VmPermit;

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
    pub artifacts: Artifacts,
    /// The agent has reported an event of the program: side effects are possible, so it must not run again.
    pub began: bool,
    /// The agent refused the request itself, which is a fault of neither the VM nor its template.
    pub refused: bool,
    /// Time until a fork acknowledged its identity.
    pub identity: Duration,
    /// Traffic that the VM's device dropped; `None` without a network device.
    pub network: Option<NetworkReport>,
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
        match identity_of(&job.about.id, network) {
            Ok(identity) => admitted.execute.identity = Some(identity),
            Err(failure) => return not_begun(failure, machine),
        }
    } else {
        admitted.execute.identity = None;
    }
    let mut events = Events::new(job, admitted);
    if job.input.is_some() {
        // A fork has the token of its template until it has its identity.
        let identity = admitted.execute.identity.as_ref();
        let token = identity.map_or(&token, |identity| &identity.token);
        match machine.connector() {
            Ok(connector) => events.input = Some(InputSender::new(connector, token.clone())),
            Err(failure) => return not_begun(failure, machine),
        }
    }
    let exchanged = guest::exchange(
        (stream, &token),
        machine.as_mut(),
        &admitted.execute,
        parts.config.agent.grace(),
        &job.cancel,
        |event| events.take(event),
    )
    .await;
    let (began, identity) = (events.began, events.identity);
    let artifacts = std::mem::replace(&mut events.collector, Collector::new(None)).finish();
    let refused = exchanged.as_ref().is_err_and(|error| error.refused);
    let network = machine.network_report().await;
    let mut teardown = Teardown::of(machine);
    let result = match exchanged {
        Ok(connection) => {
            teardown.connection = Some(connection);
            events.result()
        }
        Err(error) => Err(error.failure),
    };
    if let Some(template) = template.filter(|_| began) {
        parts.launcher.report_fork(&template, Ok(()));
    }
    Attempt {
        result,
        artifacts,
        began,
        refused,
        identity,
        network,
        teardown,
    }
}

/// The identity of a fork that runs the execution `id`.
pub fn identity_of(id: &str, network: Option<NetworkIdentity>) -> Result<Identity, Failure> {
    new_identity(id, network)
        .map_err(|error| Failure::infrastructure(format!("creating the fork's identity: {error}")))
}

fn not_begun(failure: Failure, machine: Box<dyn Machine>) -> Attempt {
    Attempt {
        result: Err(failure),
        artifacts: Artifacts::default(),
        began: false,
        refused: false,
        identity: Duration::ZERO,
        network: None,
        teardown: Teardown::of(machine),
    }
}

/// Adds the agent's events to the job's transcript.
struct Events<'a> {
    job: &'a Job,
    since: Instant,
    began: bool,
    identity: Duration,
    collector: Collector,
    /// For the job's input, once the program runs.
    input: Option<InputSender>,
    result: Option<ExecuteResult>,
}

impl<'a> Events<'a> {
    fn new(job: &'a Job, admitted: &Admitted) -> Self {
        Events {
            job,
            since: Instant::now(),
            began: false,
            identity: Duration::ZERO,
            collector: Collector::new(admitted.execute.artifacts.as_ref()),
            input: None,
            result: None,
        }
    }

    fn take(&mut self, event: Event) {
        if let Event::Identity = event {
            self.identity = self.since.elapsed();
            return;
        }
        self.began = true;
        let runs = Event::Started {
            stage: StageName::Run,
        };
        // Before readers see the event: they may send input then.
        if event == runs
            && let (Some(port), Some(sender)) = (&self.job.input, self.input.take())
        {
            port.open(sender);
        }
        match event {
            Event::Finished(result) => self.result = Some(result),
            Event::Artifact { path, bytes, mode } => self.collector.begin(path, bytes, mode),
            Event::ArtifactData { data } => self.collector.append(&data.0),
            event => self.job.update(|progress| progress.transcript.push(&event)),
        }
    }

    fn result(self) -> Result<ExecuteResult, Failure> {
        self.result
            .ok_or_else(|| Failure::infrastructure("the agent's answer ended without a result"))
    }
}
