//! CPUID: which processor a guest sees.
//!
//! [`features`] is the reviewed list of features; a [`CpuModel`] is what is left of the host's processor after it,
//! or a named [`CpuBaseline`] that is the same on many processors. Ids, topology and caches are made for each
//! vCPU.

mod baseline;
mod compare;
pub mod features;
pub mod leaf;
mod model;
pub mod recorded;
mod report;
mod topology;
mod xsave;

pub use baseline::{CpuBaseline, Vendor};
pub use compare::{differences, hidden};
pub use leaf::Leaf;
pub use model::{CpuModel, CpuModelError, vendor_name};
pub use report::report;
pub use xsave::components as xsave_components;
