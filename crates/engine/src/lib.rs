//! Runs code in fresh KVM micro-VMs.
//!
//! ```no_run
//! use cloude_engine::{Engine, EngineConfig, Program};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start(EngineConfig::default()).await?;
//! let output = engine.run(&Program::new("python", "print(6 * 7)")).await?;
//! assert_eq!(output.stdout, b"42\n");
//! engine.shut_down().await;
//! # Ok(())
//! # }
//! ```
//!
//! Each program runs in a VM of its own, which is killed when the program ends. The first program of a language
//! boots its VM. Meanwhile the engine builds a *template*: it boots another VM, warms the interpreter or compiler,
//! and saves guest memory and VM state. Later programs run in *forks* of the template, which start in a few
//! milliseconds and share its memory copy-on-write.
//!
//! # What it needs
//!
//! - /dev/kvm, on a host whose KVM boots ordinary kernels (`cloude doctor` checks it);
//! - the binaries `cloude-vmm` and `cloude-agent`, a guest kernel, and language files
//!   ([`EngineConfig`] names their paths; the defaults are those of an installation);
//! - root, or CAP_NET_ADMIN, for VMs with a network.
//!
//! # Levels of control
//!
//! - [`Engine::run`] runs a [`Program`] with the defaults of its language.
//! - [`Launcher::launch`] starts a VM with a [`MachineSpec`] and returns the stream to its agent; [`guest`] has the
//!   requests that the agent answers. A fork must receive an identity first ([`guest::new_identity`]).
//! - [`Engine::with_admission`] lets the caller limit the VMs that the engine starts by itself ([`Admission`]).
//!
//! Failures of a VM are a [`Failure`] with a cause. A program that exits with an error is not a failure.
//!
//! # Modules
//!
//! | module | owner | task |
//! |---|---|---|
//! | `engine` | [`Engine`] | owns the others; the only entry |
//! | `pool` | `Pool` | templates in memory, paused forks, their policy and refill |
//! | `template` | `TemplateBuilder` | keys, builds, the disk store |
//! | `worker` | `Workers` | one process for each VM: spawn, boot, restore, connect, end |
//! | `isolation` | `Prison` | the walls of this host, users and cgroups of workers |
//! | [`guest`] | | requests to the agent, identities |
//! | [`network`] | [`network::NetworkProvider`] | bridge, TAPs, addresses, firewall rules |
//! | [`images`], [`languages`] | | images and language files |
//!
//! A module uses only modules below it in this table, and the files of types at the crate's root.
#![deny(missing_docs)]

mod admission;
pub mod config;
mod engine;
mod error;
mod files;
pub mod guest;
pub mod images;
mod isolation;
pub mod languages;
mod launched;
mod launcher;
mod machine;
pub mod network;
mod pool;
mod program;
mod run_dir;
mod snapshot;
mod template;
mod worker;

pub use admission::{Admission, Demand, PendingPermit, QueueFull, Unlimited, VmPermit};
pub use config::EngineConfig;
pub use engine::{Engine, SetUpError};
pub use error::{Failure, TemplateError};
pub use isolation::{IsolationError, WallState};
pub use launched::{AgentConnector, Launched, Machine};
pub use launcher::Launcher;
pub use machine::{AgentStream, MEMORY_STEP_MIB, MachineShape, MachineSpec, WORKER_MIB};
pub use pool::PoolCounts;
pub use program::{Output, Program, RunError};
pub use run_dir::RunDirError;
pub use worker::{SegmentError, open_device};
