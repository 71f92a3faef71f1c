//! A micro-VM over KVM (memory, vCPUs, devices, snapshots), and the worker process that runs one.
//!
//! [`vm::Vm`] boots a guest, [`vm::BlankVm`] restores a snapshot. [`worker::run`] does both for a host process that
//! sends the requests of [`control`].
#![deny(missing_docs)]

pub mod arch;
pub mod bus;
pub mod capabilities;
pub mod control;
pub mod devices;
pub mod exit;
pub mod jail;
pub mod memory;
pub mod panics;
pub mod probe;
pub mod snapshot;
mod sync;
pub mod vcpu;
pub mod vm;
pub mod worker;

/// The common start of every guest's kernel command line.
///
/// `reboot=a` and `panic=-1` make a panic reset at once through ACPI. `no_timer_check` skips a timer check that is
/// unnecessary on KVM, `8250.nr_uarts=1` probes the one existing serial port, and `pci=off` probes no PCI bus.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 reboot=a panic=-1 no_timer_check \
     8250.nr_uarts=1 pci=off random.trust_cpu=on";
