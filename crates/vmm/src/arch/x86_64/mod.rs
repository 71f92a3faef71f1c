//! The x86-64 machine: memory layout, kernel loading and boot protocols, CPU state, ACPI tables.

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod initramfs;
pub mod kernel;
pub mod layout;
mod linux64;
pub mod msrs;
mod pvh;
mod reader;
pub mod regs;

pub use linux64::write_page_tables as long_mode_tables;
