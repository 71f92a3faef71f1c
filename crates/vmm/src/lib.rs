//! A wrapper over KVM: a micro-VM with its vCPUs, memory and devices, and the worker process that is one.
#![deny(missing_docs)]

pub mod arch;
pub mod bus;
pub mod capabilities;
pub mod control;
pub mod devices;
pub mod exit;
pub mod memory;
pub mod panics;
pub mod probe;
pub mod snapshot;
mod sync;
pub mod vcpu;
pub mod vm;
pub mod worker;

/// The start of every guest's command line.
///
/// `reboot=a` and `panic=-1`: a panic resets at once, through ACPI. `no_timer_check` skips a check of the
/// timer that KVM vouches for, `8250.nr_uarts=1` looks for the one serial port there is, and `pci=off` for
/// no PCI bus.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 reboot=a panic=-1 no_timer_check \
     8250.nr_uarts=1 pci=off random.trust_cpu=on";
