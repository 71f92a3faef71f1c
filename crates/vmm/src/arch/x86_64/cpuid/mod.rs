//! CPUID: the processor that a guest sees.
//!
//! [`features`] is the reviewed list of features that guests may see. A [`CpuModel`] has the host's features from that
//! list, or those of a named [`CpuBaseline`] that is equal on many processors. APIC ids, topology and caches are
//! generated for each vCPU.

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
