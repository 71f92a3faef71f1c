//! Forks for executions.

use std::sync::Arc;

use cloude_protocol::api::{StartChoice, StartKind};
use tokio_util::sync::CancellationToken;

use super::builds::{self, Build};
use super::entry::{Found, Lookup};
use super::owner::Pool;
use crate::admission::Demand;
use crate::error::Failure;
use crate::launched::Launched;
use crate::machine::{MachineSpec, WORKER_MIB};
use crate::network::Attached;
use crate::snapshot::Template;
use crate::worker::PooledFork;

/// The memory and vCPUs of a template's build.
pub(super) fn demand(spec: &MachineSpec) -> Demand {
    Demand {
        memory_mib: spec.memory_mib + WORKER_MIB,
        vcpus: usize::from(spec.vcpus),
    }
}

impl Pool {
    /// A resumed fork for an execution. `None` if the execution should be booted: the template is being built,
    /// or this machine gets none. With [`StartChoice::Fork`] it waits for the build instead.
    pub async fn lease(
        self: &Arc<Self>,
        spec: &MachineSpec,
        cancel: &CancellationToken,
    ) -> Result<Option<Launched>, Failure> {
        let fork_required = spec.start == Some(StartChoice::Fork);
        let lookup = Lookup {
            default_machine: self.is_default_machine(spec),
            fork_required,
        };
        let mut changes = self.forks.changes();
        loop {
            changes.mark_unchanged();
            // Computed in each iteration: a file may be replaced during the wait below.
            let key = self.parts.keys.key(spec).await?;
            let id = key.id();
            match self.forks.find(&id, lookup) {
                Found::Fork(fork) => match self.resume(*fork, &id, StartKind::Pool).await {
                    Ok(launched) => return Ok(Some(launched)),
                    Err(failure) => self.fork_failed(&id, &failure),
                },
                Found::Ready(template) => {
                    // No address, if it needs one: the template is not to blame.
                    let network = &self.parts.network;
                    let attached = network.attach(template.shape.network).await?;
                    return match self.fork_now(&template, attached, &id).await {
                        Ok(launched) => Ok(Some(launched)),
                        Err(failure) => {
                            self.fork_failed(&id, &failure);
                            if fork_required {
                                Err(failure)
                            } else {
                                Ok(None)
                            }
                        }
                    };
                }
                Found::Begin(waiver) => {
                    // An execution that waits for the build lends it its permit.
                    let permit = (!fork_required)
                        .then(|| self.parts.admission.enter_background(demand(spec)));
                    let build = Build {
                        key,
                        spec: spec.clone(),
                        permit,
                        waiver,
                    };
                    builds::spawn(self, build);
                    if !fork_required {
                        return Ok(None);
                    }
                }
                Found::Failed(message) if fork_required => {
                    return Err(Failure::infrastructure(format!(
                        "the template of `{}` could not be built: {message}",
                        spec.language.name
                    )));
                }
                Found::Failed(_) | Found::None => return Ok(None),
                Found::Building if !fork_required => return Ok(None),
                Found::Building => tokio::select! {
                    () = cancel.cancelled() => return Err(Failure::cancelled("cancelled")),
                    () = self.closing.cancelled() => return Err(Failure::shutting_down()),
                    _ = changes.changed() => {}
                },
            }
        }
    }

    /// Makes and resumes a fork.
    async fn fork_now(
        &self,
        template: &Arc<Template>,
        attached: Option<Attached>,
        id: &str,
    ) -> Result<Launched, Failure> {
        let fork = self.parts.workers.fork(template, attached).await?;
        self.forks.made(id);
        self.resume(fork, id, StartKind::Fork).await
    }

    async fn resume(
        &self,
        fork: PooledFork,
        id: &str,
        start: StartKind,
    ) -> Result<Launched, Failure> {
        let token = fork.template.token.clone();
        let (vm, stream, network) = self.parts.workers.resume(fork).await?;
        Ok(Launched {
            stream,
            token,
            ip: vm.ip(),
            start,
            template: Some(id.to_owned()),
            network,
            machine: Box::new(vm),
        })
    }
}
