//! Limits of memory. A VM has one memory for the kernel, the image and both stages of a program.

use cloude_protocol::language::Language;

use crate::config::Config;

/// Memory of a language's VM in MiB, if the request has no limit.
pub fn default_mib(language: &Language, config: &Config) -> u64 {
    let memory_mib = language.machine.memory_mib;
    memory_mib.unwrap_or(config.vm.memory_mib)
}

/// The limit in bytes of a request, if it is above the default. Smaller VMs could not hold the image.
pub fn above_default(wanted: Option<u64>, default_mib: u64) -> Option<u64> {
    wanted.filter(|bytes| *bytes > default_mib.saturating_mul(1 << 20))
}
