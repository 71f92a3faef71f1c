//! The configuration of a VM, and the byte stream to its agent.

use std::path::PathBuf;
use std::sync::Arc;

use cloude_protocol::api::StartChoice;
use cloude_protocol::language::Language;
use tokio::io::{AsyncRead, AsyncWrite};

/// Host memory of a VM besides its guest's memory: the worker with its share of page cache, in MiB.
pub const WORKER_MIB: u64 = 16;
/// Guest memory is rounded up to a multiple of this many MiB, so that requests for slightly different sizes
/// share templates.
pub const MEMORY_STEP_MIB: u64 = 128;

/// A byte stream to the agent.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentStream for T {}

/// The VM that an execution asks for.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The execution's id; it appears in the guest's host name and in logs.
    pub id: String,
    /// The language image, a cpio archive.
    pub image: PathBuf,
    /// The language that will run; its template is warmed for it.
    pub language: Arc<Language>,
    /// 1 to 8.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Has a network device that reaches the internet.
    pub network: bool,
    /// The template is shared with specs of the same owner only; `None`: with all specs that have none.
    pub template_owner: Option<String>,
    /// Forces a fork or a cold boot; the engine chooses if this is `None`.
    pub start: Option<StartChoice>,
}

impl MachineSpec {
    /// Its machine configuration.
    pub fn shape(&self) -> MachineShape {
        MachineShape {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            network: self.network,
        }
    }
}

/// Machine configuration that a blank VM shares with every snapshot that it can restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineShape {
    /// 1 to 8.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The guest reaches the internet. It then has a virtio-net device; with `agent.transport = "ip"` every
    /// guest has one.
    pub network: bool,
}
