//! The types of the pool's reports.

use crate::machine::MachineShape;

/// The language and machine of a template.
#[derive(Clone, Debug)]
pub struct TemplateLabel {
    /// The language's name.
    pub language: String,
    /// The machine configuration.
    pub shape: MachineShape,
}

/// The state of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateStatus {
    /// Not known to the pool.
    Unknown,
    /// A build runs or waits for its permit.
    Building,
    /// Ready to fork.
    Ready,
    /// The last build failed, for this reason.
    Failed(String),
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Templates that were booted, warmed and saved.
    pub built: u64,
    /// Templates that were loaded from the disk store.
    pub loaded: u64,
    /// Builds that failed.
    pub failed_builds: u64,
    /// Templates that were dropped because their forks failed.
    pub given_up: u64,
    /// Forks that failed before they ran anything.
    pub failed_forks: u64,
}
