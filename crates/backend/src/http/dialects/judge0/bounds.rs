//! Defaults and maxima of a submission's limits: those of the server.

use crate::config::Config;

/// Largest `cpu_extra_time` in seconds.
const MAX_EXTRA_S: f64 = 5.0;
/// Stack of compiled programs in KiB, if the server has no default: that of Judge0. Interpreters would lose their warm
/// start by a limit of the stack.
const STACK_KIB: u64 = 64_000;

/// A default and a maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound<T> {
    pub default: T,
    pub most: T,
}

/// The bounds of all limits. Times are in seconds, sizes in KiB.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    pub cpu_time: Bound<f64>,
    pub cpu_extra_time: Bound<f64>,
    pub wall_time: Bound<f64>,
    pub memory: Bound<u64>,
    pub stack: Bound<u64>,
    pub processes: Bound<u64>,
    pub file: Bound<u64>,
    /// Bytes of all files of `additional_files`.
    pub files_bytes: usize,
    /// Largest output of a stream in bytes.
    pub output_bytes: u64,
}

impl Bounds {
    /// The bounds of a server.
    pub fn of(config: &Config) -> Self {
        let limits = &config.limits;
        let seconds = |ms: u64| ms as f64 / 1000.0;
        // In the configuration, 0 sets no limit.
        let or = |limit: u64, other: u64| if limit > 0 { limit } else { other };
        let most_wall_ms = limits.max_wall_time_ms;
        let most_cpu_ms = or(limits.max_cpu_time_ms, most_wall_ms);
        let most_memory = config.vm.max_memory_mib * 1024;
        // Files are in the guest's memory.
        let most_file = or(limits.max_file_bytes / 1024, most_memory);
        let most_stack = or(limits.max_stack_bytes / 1024, most_memory);
        let most_processes = or(limits.max_processes.into(), u32::MAX.into());
        Bounds {
            cpu_time: Bound {
                default: seconds(or(limits.cpu_time_ms, limits.wall_time_ms).min(most_cpu_ms)),
                most: seconds(most_cpu_ms),
            },
            cpu_extra_time: Bound {
                default: 1.0,
                most: MAX_EXTRA_S,
            },
            wall_time: Bound {
                default: seconds(limits.wall_time_ms),
                most: seconds(most_wall_ms),
            },
            memory: Bound {
                default: config.vm.memory_mib * 1024,
                most: most_memory,
            },
            stack: Bound {
                default: or(limits.stack_bytes / 1024, STACK_KIB).min(most_stack),
                most: most_stack,
            },
            processes: Bound {
                default: or(limits.processes.into(), most_processes),
                most: most_processes,
            },
            file: Bound {
                default: or(limits.file_bytes / 1024, most_file),
                most: most_file,
            },
            files_bytes: limits.code_bytes,
            output_bytes: limits.max_output_bytes,
        }
    }
}
