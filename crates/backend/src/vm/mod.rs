//! Machines, as the rest of the backend sees them: started for one execution, with a connection to
//! the agent in them, and stopped.

mod booting;
mod building;
mod console;
mod control;
mod filling;
pub mod fork;
mod forking;
pub mod identity;
mod launcher;
mod machine;
pub mod orphans;
pub mod pool;
mod reopen;
mod segment;
pub mod template;
mod templates;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use cloude_protocol::agent::{Cause, NetworkIdentity};
use cloude_protocol::api::{StartChoice, StartKind, TemplateInfo};
use cloude_protocol::language::Language;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::scheduler::Full;
use pool::list::Counts;

pub use launcher::{SetUpError, VmLauncher};

/// A byte stream to the agent.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentStream for T {}

/// What machine is wanted.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The execution's id, for names and logs.
    pub id: String,
    /// The image's cpio.
    pub image: PathBuf,
    /// What it will run: a template of it is warmed for that.
    pub language: Arc<Language>,
    /// 1 to 8.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u64,
    /// May it reach the internet?
    pub network: bool,
    /// How it has to come to be, if that matters.
    pub start: Option<StartChoice>,
}

/// A machine whose agent is ready.
pub struct Started {
    /// The connection.
    pub stream: Box<dyn AgentStream>,
    /// What the agent asks for.
    pub token: String,
    /// Its address, if it has one.
    pub ip: Option<Ipv4Addr>,
    /// How it came to be.
    pub start: StartKind,
    /// The template that it is a fork of: it must be given an identity, and its launcher wants to know
    /// how it went ([`Launcher::forked`]).
    pub template: Option<String>,
    /// What a fork with a network is told of it, in its identity.
    pub network: Option<NetworkIdentity>,
    /// The machine itself.
    pub machine: Box<dyn Machine>,
}

/// Why there is no machine, or no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Death {
    /// [`Cause::GuestPanic`], [`Cause::Cancelled`] or [`Cause::Infrastructure`].
    pub cause: Cause,
    /// In words.
    pub message: String,
}

impl Death {
    /// Our own fault.
    pub fn infrastructure(message: impl Into<String>) -> Self {
        Death {
            cause: Cause::Infrastructure,
            message: message.into(),
        }
    }

    /// The server stops.
    pub fn shutting_down() -> Self {
        Death::cancelled("cancelled: the server is shutting down")
    }

    /// The caller gave the VM up. The message says who did, where the caller knows.
    pub fn cancelled(message: &str) -> Self {
        Death {
            cause: Cause::Cancelled,
            message: message.into(),
        }
    }
}

/// Memory that a VM takes of the host beside its guest's: the worker with its share of page cache. MiB.
pub const WORKER_MIB: u64 = 16;
/// Guest memory is given in steps of so many MiB, so that requests for ever other sizes are requests for few
/// different machines.
pub const MEMORY_STEP_MIB: u64 = 128;

/// Why a template is not built, or not removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing of that kind is forked here; the message says why.
    #[error("{0}")]
    Impossible(String),
    /// It is being built; wait for that.
    #[error("the template is being built; try again when it is ready")]
    Building,
    /// As many builds run or wait as the server keeps templates.
    #[error(
        "as many templates are being built as this server keeps (`pool.templates`); try again later"
    )]
    Busy,
    /// There is no place in the queue for the build's VM.
    #[error(transparent)]
    Full(#[from] Full),
    /// The machine it is made of, or the disk.
    #[error(transparent)]
    Failed(#[from] Death),
}

/// Starts machines.
pub trait Launcher: Send + Sync {
    /// Starts one and waits until its agent is ready. Cancelled or failed, it leaves nothing.
    fn launch(
        &self,
        spec: MachineSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Started, Death>>;

    /// Reports whether a fork of a template acknowledged its identity and began to work. An execution that the
    /// agent refused for its request's sake is neither: that is not the template's fault.
    fn forked(&self, _template: &str, _result: Result<(), &Death>) {}

    /// All templates. A launcher that forks nothing has none.
    fn templates(&self) -> BoxFuture<'_, Vec<TemplateInfo>> {
        Box::pin(async { Vec::new() })
    }

    /// Builds the template of such machines, or waits until it is built. Gives whether it was built for
    /// this call.
    fn build_template(
        &self,
        _spec: MachineSpec,
    ) -> BoxFuture<'_, Result<(TemplateInfo, bool), TemplateError>> {
        let message = "this server makes no templates".to_owned();
        Box::pin(async { Err(TemplateError::Impossible(message)) })
    }

    /// Removes a template from memory and disk; forks of it that run are not touched. Gives whether there
    /// was one.
    fn remove_template<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, Result<bool, TemplateError>> {
        Box::pin(async { Ok(false) })
    }

    /// What became of templates and forks since the start.
    fn template_counts(&self) -> Counts {
        Counts::default()
    }
}

/// A running machine.
pub trait Machine: Send {
    /// Waits until it dies by itself, and says why. May be dropped and asked again.
    fn died(&mut self) -> BoxFuture<'_, Death>;

    /// Kills it and waits until nothing of it is left.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}
