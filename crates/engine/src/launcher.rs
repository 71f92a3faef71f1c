//! The interface between the engine and whoever runs executions on it.

use cloude_protocol::api::TemplateInfo;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, TemplateError};
use crate::isolation::WallState;
use crate::launched::Launched;
use crate::machine::MachineSpec;
use crate::pool::PoolCounts;

/// Launches VMs. [`crate::Engine`] is the real one; tests have others.
pub trait Launcher: Send + Sync {
    /// Launches a VM and waits until its agent is ready. Nothing is left of a launch that was cancelled or
    /// failed.
    fn launch(
        &self,
        spec: MachineSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Launched, Failure>>;

    /// Checks that VMs can be started. The error says why not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Reports whether a fork acknowledged its identity and began to work. Forks that fail in a row make the
    /// engine rebuild the template. A request that the agent refused is not reported: the template is not to
    /// blame.
    fn report_fork(&self, _template: &str, _result: Result<(), &Failure>) {}

    /// All templates.
    fn templates(&self) -> BoxFuture<'_, Vec<TemplateInfo>> {
        Box::pin(async { Vec::new() })
    }

    /// Builds the template of a machine, or waits for a build in progress. The flag is true if this call
    /// started the build.
    fn build_template(
        &self,
        _spec: MachineSpec,
    ) -> BoxFuture<'_, Result<(TemplateInfo, bool), TemplateError>> {
        let message = "this server makes no templates".to_owned();
        Box::pin(async { Err(TemplateError::Impossible(message)) })
    }

    /// Removes a template from memory and disk; its running forks go on. True if there was one.
    fn remove_template<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, Result<bool, TemplateError>> {
        Box::pin(async { Ok(false) })
    }

    /// The walls of workers' jails, and which of them this host lacks.
    fn walls(&self) -> Vec<WallState> {
        Vec::new()
    }

    /// Counts of templates and forks since the start.
    fn pool_counts(&self) -> PoolCounts {
        PoolCounts::default()
    }
}
