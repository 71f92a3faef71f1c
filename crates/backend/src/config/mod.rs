//! The configuration of `clouded`: defaults, overridden by a TOML file, environment variables and flags in that
//! order.

mod env;
mod validate;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cloude_engine::{EngineConfig, config};
use cloude_protocol::paths;
use serde::{Deserialize, Serialize};

pub use cloude_engine::config::{
    Agent, CpuBaseline, ImageSource, Images, Network, Pool, Transport,
};
pub use cloude_protocol::paths::cache_dir;
pub use env::apply as apply_env;
pub use validate::ConfigError;

/// Read when it exists and `--config` names no other.
pub const DEFAULT_FILE: &str = "/etc/cloude/clouded.toml";

/// The whole configuration. Every key has a default.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
    /// Holds the job store, the lock and what a later start must clean up.
    pub state_dir: PathBuf,
    /// A folder of `NAME.toml` language files.
    pub languages: PathBuf,
    /// A kernel folder (`vmlinux`, `modules/`) or a bare kernel file.
    pub kernel: PathBuf,
    /// Initramfs images.
    pub images: Images,
    /// The agent in the guest.
    pub agent: Agent,
    /// The machines.
    pub vm: Vm,
    /// Templates and paused forks.
    pub pool: Pool,
    /// Waiting executions.
    pub queue: Queue,
    /// What a request may ask for.
    pub limits: Limits,
    /// The network of VMs that have one.
    pub network: Network,
    /// Kept results.
    pub store: Store,
    /// How to stop.
    pub shutdown: Shutdown,
    /// A slow host's times are so many times those of hardware: see [`Config::in_host_time`].
    pub time_factor: u32,
}

/// The machines.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Vm {
    /// The `cloude-vmm` binary.
    pub worker: PathBuf,
    /// VMs at once; 0 for twice the host's CPUs.
    pub max_concurrent: usize,
    /// Guest memory of all VMs together in MiB; 0 for three quarters of MemAvailable at the start.
    pub memory_budget_mib: u64,
    /// vCPUs where neither request nor language says. 1 to 8.
    pub vcpus: u8,
    /// vCPUs of all VMs together; 0 for twice the host's CPUs, or `max_concurrent` where that is more. A single
    /// VM may have more.
    pub max_vcpus_total: usize,
    /// MiB where neither request nor language says.
    pub memory_mib: u64,
    /// The most MiB that a request may ask for.
    pub max_memory_mib: u64,
    /// Which features of the host's processor guests see. Templates move between machines of one vendor with the
    /// same named baseline.
    pub cpu_baseline: CpuBaseline,
    /// Added to the kernel's command line.
    pub kernel_args: String,
    /// Copy the guests' consoles to the log.
    pub log_guest_console: bool,
}

/// Waiting executions.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Accepted and not yet in a VM; past it requests are answered 429.
    pub capacity: usize,
}

/// What a request may ask for.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The program with its files, arguments, environment and input, in bytes.
    pub code_bytes: usize,
    /// A request's whole body, in bytes.
    pub body_bytes: usize,
    /// Wall clock of the run stage where nothing else says, in milliseconds.
    pub wall_time_ms: u64,
    /// Wall clock of the compile stage where nothing else says, in milliseconds.
    pub compile_time_ms: u64,
    /// The most of either that a request may ask for, in milliseconds.
    pub max_wall_time_ms: u64,
    /// Kept of each output stream where the request does not say, in bytes.
    pub output_bytes: u64,
    /// The most that a request may ask for, in bytes.
    pub max_output_bytes: u64,
}

/// Kept results.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Finished executions older than this many hours are forgotten.
    pub keep_hours: u64,
    /// At most so many finished executions are kept.
    pub keep_jobs: u64,
    /// The most that the database may hold, in bytes; past it the oldest finished executions are removed.
    pub max_bytes: u64,
    /// Finished executions kept in memory too, in bytes of output. While more than that waits to be written,
    /// nothing new is accepted.
    pub cache_bytes: usize,
}

/// How to stop.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// What running executions get to finish after SIGTERM, in milliseconds.
    pub grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            state_dir: paths::state_dir(root),
            languages: paths::languages(root),
            kernel: paths::kernel(),
            images: Images::default(),
            agent: Agent::default(),
            vm: Vm::default(),
            pool: Pool::default(),
            queue: Queue::default(),
            limits: Limits::default(),
            network: Network::default(),
            store: Store::default(),
            shutdown: Shutdown::default(),
            time_factor: 1,
        }
    }
}

impl Default for Vm {
    fn default() -> Self {
        Vm {
            worker: paths::sibling("cloude-vmm"),
            max_concurrent: 0,
            memory_budget_mib: 0,
            vcpus: 1,
            max_vcpus_total: 0,
            memory_mib: 512,
            max_memory_mib: 8192,
            cpu_baseline: CpuBaseline::Host,
            kernel_args: String::new(),
            log_guest_console: false,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue { capacity: 256 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            code_bytes: 10 << 20,
            body_bytes: 32 << 20,
            wall_time_ms: 30_000,
            compile_time_ms: 60_000,
            max_wall_time_ms: 600_000,
            output_bytes: 1 << 20,
            max_output_bytes: 64 << 20,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Store {
            keep_hours: 168,
            keep_jobs: 100_000,
            max_bytes: 1 << 30,
            cache_bytes: 64 << 20,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { grace_ms: 30_000 }
    }
}

impl Config {
    /// Reads a TOML file over the defaults.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The file that `path` names; without one, [`DEFAULT_FILE`] if it exists, else the defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Config::from_file(path),
            None if Path::new(DEFAULT_FILE).exists() => Config::from_file(Path::new(DEFAULT_FILE)),
            None => Ok(Config::default()),
        }
    }

    /// The configuration with the time-outs and default limits of a host that is [`Config::time_factor`] times
    /// as slow as hardware: the one place where the factor is applied to a configuration. The factor of the
    /// result is 1. Limits that a request names are the client's, and are not multiplied.
    pub fn in_host_time(&self) -> Self {
        let factor = u64::from(self.time_factor);
        let mut config = self.clone();
        for time in [
            &mut config.agent.boot_timeout_ms,
            &mut config.agent.grace_ms,
            &mut config.limits.wall_time_ms,
            &mut config.limits.compile_time_ms,
            // The defaults above must stay within it.
            &mut config.limits.max_wall_time_ms,
        ] {
            *time = time.saturating_mul(factor);
        }
        config.time_factor = 1;
        config
    }

    /// The engine's part. The run directory lies in the state folder.
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            run_dir: self.state_dir.join("run"),
            languages: self.languages.clone(),
            kernel: self.kernel.clone(),
            images: self.images.clone(),
            agent: self.agent.clone(),
            vm: config::Vm {
                worker: self.vm.worker.clone(),
                vcpus: self.vm.vcpus,
                memory_mib: self.vm.memory_mib,
                cpu_baseline: self.vm.cpu_baseline,
                kernel_args: self.vm.kernel_args.clone(),
                log_guest_console: self.vm.log_guest_console,
            },
            pool: self.pool.clone(),
            network: self.network.clone(),
            warm_time_ms: self.limits.compile_time_ms,
        }
    }

    /// The configuration in TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "[vm]\nmax_concurent = 3\n").unwrap();
        let error = Config::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("max_concurent"), "{error}");
    }

    #[test]
    fn the_file_keeps_defaults_for_what_it_leaves_out() {
        let config: Config = toml::from_str("[vm]\nmax_concurrent = 3\n").unwrap();
        assert_eq!(config.vm.max_concurrent, 3);
        assert_eq!(config.vm.memory_mib, 512);
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn a_slow_host_multiplies_time_outs_and_default_limits_once() {
        let config = Config {
            time_factor: 20,
            ..Config::default()
        };
        let slow = config.in_host_time();
        let times = |config: &Config| {
            [
                config.agent.boot_timeout_ms,
                config.agent.grace_ms,
                config.limits.wall_time_ms,
                config.limits.compile_time_ms,
            ]
        };
        assert_eq!(times(&slow), times(&config).map(|ms| 20 * ms));
        assert_eq!(slow.in_host_time(), slow);
        slow.validate().unwrap();
    }

    #[test]
    fn what_check_prints_reads_back_as_the_same() {
        let config = Config::default();
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
    }
}
