//! The machine of a request.

use cloude_engine::MEMORY_STEP_MIB;
use cloude_protocol::api::ExecutionRequest;
use cloude_protocol::language::Language;

use crate::config::Config;
use crate::jobs::refused::{Refused, ensure};

const MIB: u64 = 1 << 20;
/// The least guest memory in MiB.
const MIN_MIB: u64 = 64;

pub struct Machine {
    pub vcpus: u8,
    /// A multiple of [`MEMORY_STEP_MIB`], or the limit.
    pub memory_mib: u64,
}

/// The machine that the request gets: its own values, else the language's, else the server's.
pub fn of(
    request: &ExecutionRequest,
    language: &Language,
    config: &Config,
    budget_mib: u64,
) -> Result<Machine, Refused> {
    ensure(!request.network || config.network.enabled, || {
        Refused::NoNetwork
    })?;
    let vcpus = request
        .limits
        .vcpus
        .or(language.machine.vcpus)
        .unwrap_or(config.vm.vcpus);
    ensure((1..=8).contains(&vcpus), || Refused::Vcpus { vcpus })?;
    let default = language.machine.memory_mib.unwrap_or(config.vm.memory_mib);
    let wanted = request.limits.memory_bytes;
    let memory_mib = wanted.map_or(default, |bytes| bytes.div_ceil(MIB));
    let limit = config.vm.max_memory_mib.max(default).min(budget_mib);
    ensure((MIN_MIB..=limit).contains(&memory_mib), || match wanted {
        Some(bytes) => Refused::Limit {
            field: "memory_bytes",
            value: bytes,
            least: MIN_MIB * MIB,
            limit: limit.saturating_mul(MIB),
        },
        None => Refused::DefaultMemory { memory_mib, limit },
    })?;
    let rounded = memory_mib.next_multiple_of(MEMORY_STEP_MIB).min(limit);
    Ok(Machine {
        vcpus,
        memory_mib: rounded,
    })
}
