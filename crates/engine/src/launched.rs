//! A VM as the engine hands it out.

use std::net::Ipv4Addr;
use std::sync::Arc;

use cloude_protocol::agent::NetworkIdentity;
use cloude_protocol::api::StartKind;
use cloude_protocol::network::NetworkReport;
use futures_util::future::BoxFuture;

use crate::error::Failure;
use crate::machine::AgentStream;

/// A running VM whose agent waits for a request.
pub struct Launched {
    /// The connection to the agent.
    pub stream: Box<dyn AgentStream>,
    /// The bearer token that the agent accepts.
    pub token: String,
    /// The VM's address, if it has a network device.
    pub ip: Option<Ipv4Addr>,
    /// Whether it was booted, forked, or taken from the pool.
    pub start: StartKind,
    /// The template's id if the VM is a fork. The first request must then carry an identity
    /// ([`crate::guest::new_identity`]), and [`crate::Launcher::report_fork`] must be called with the outcome.
    pub template: Option<String>,
    /// The network part of a fork's identity.
    pub network: Option<NetworkIdentity>,
    /// The VM.
    pub machine: Box<dyn Machine>,
}

/// Opens further connections to the agent of a running VM. It stays valid while the machine is borrowed, and keeps nothing
/// of the VM alive: after its end, connections fail.
#[derive(Clone)]
pub struct AgentConnector(Arc<Connect>);

type Connect = dyn Fn() -> Result<Box<dyn AgentStream>, Failure> + Send + Sync;

impl AgentConnector {
    /// `connect` must not block.
    pub fn new(
        connect: impl Fn() -> Result<Box<dyn AgentStream>, Failure> + Send + Sync + 'static,
    ) -> Self {
        AgentConnector(Arc::new(connect))
    }

    /// A new stream to the agent, which can be written at once. If the guest does not accept it, it is closed.
    pub fn connect(&self) -> Result<Box<dyn AgentStream>, Failure> {
        (self.0)()
    }
}

/// A running VM.
pub trait Machine: Send {
    /// For further connections to the agent, such as those of [`crate::guest::InputSender`].
    fn connector(&self) -> Result<AgentConnector, Failure> {
        let message = "this VM has one connection to its agent";
        Err(Failure::infrastructure(message))
    }

    /// Waits until the VM ends by itself, and returns the reason. Can be dropped and called again.
    fn failed(&mut self) -> BoxFuture<'_, Failure>;

    /// The traffic of the guest that its network device has dropped so far; `None` without such a device, or if the
    /// VM has ended.
    fn network_report(&mut self) -> BoxFuture<'_, Option<NetworkReport>> {
        Box::pin(async { None })
    }

    /// Kills the VM and waits until its process, address and TAP are gone.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}
