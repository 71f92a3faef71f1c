//! A wrapper over KVM: a micro-VM with its vCPUs, memory and devices, and the worker process that is one.
#![deny(missing_docs)]

pub mod control;
pub mod devices;
