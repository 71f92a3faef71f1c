//! `cloude-vmm worker`: one VM, controlled over a socket ([`crate::control`]).

mod blank;
mod boot;
mod descriptors;
mod devices;
mod error;
mod limits;
mod outbox;
mod run;
mod serve;
mod vsock;

pub use error::WorkerError;
pub use run::run;
