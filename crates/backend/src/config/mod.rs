//! The configuration of `clouded`: defaults, overridden by a TOML file, then by environment variables, then by flags.
//! docs/configuration.md has every key.

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

/// The file that is read without `--config`, if it exists.
pub const DEFAULT_FILE: &str = "/etc/cloude/clouded.toml";

/// The whole configuration. Every key has a default.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port of the HTTP server. Port 0 selects a free port, which the log names.
    pub listen: SocketAddr,
    /// Folder of the job store, the lock and the run directory.
    pub state_dir: PathBuf,
    /// Folder of the languages.
    pub languages: PathBuf,
    /// A kernel folder (`vmlinux`, `modules/`) or a bare `vmlinux`.
    pub kernel: PathBuf,
    /// Language images.
    pub images: Images,
    /// The agent in the guest.
    pub agent: Agent,
    /// The VMs.
    pub vm: Vm,
    /// Templates and paused forks.
    pub pool: Pool,
    /// The queue of executions.
    pub queue: Queue,
    /// Limits of requests.
    pub limits: Limits,
    /// The network of VMs that have one.
    pub network: Network,
    /// Stored results.
    pub store: Store,
    /// The shutdown.
    pub shutdown: Shutdown,
    /// How many times slower than hardware the host is ([`Config::in_host_time`]).
    pub time_factor: u32,
}

/// The VMs.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Vm {
    /// The `cloude-vmm` binary.
    pub worker: PathBuf,
    /// Maximum VMs at once. 0: twice the CPUs.
    pub max_concurrent: usize,
    /// Memory of all VMs and templates in MiB. 0: three quarters of MemAvailable at the start.
    pub memory_budget_mib: u64,
    /// vCPUs, 1 to 8, if neither request nor language sets them.
    pub vcpus: u8,
    /// vCPUs of all VMs. 0: twice the CPUs, or `max_concurrent` if that is more. A VM with more runs alone.
    pub max_vcpus_total: usize,
    /// Guest memory in MiB, if neither request nor language sets it.
    pub memory_mib: u64,
    /// Maximum guest memory of a request in MiB.
    pub max_memory_mib: u64,
    /// The CPU features that guests see. Templates move between hosts of one vendor with the same named baseline.
    pub cpu_baseline: CpuBaseline,
    /// Appended to the guest kernel's command line.
    pub kernel_args: String,
    /// Copies the guests' serial consoles to the log.
    pub log_guest_console: bool,
}

/// The queue of executions.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Maximum executions that wait for a VM. Further requests get 429.
    pub capacity: usize,
}

/// Limits of requests.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum bytes of code, files, arguments, environment and stdin together.
    pub code_bytes: usize,
    /// Maximum bytes of an HTTP request body.
    pub body_bytes: usize,
    /// Wall-clock limit of the run stage in milliseconds, if neither request nor language sets it.
    pub wall_time_ms: u64,
    /// Wall-clock limit of the compile stage in milliseconds, if neither request nor language sets it.
    pub compile_time_ms: u64,
    /// Maximum wall-clock limit of either stage that a request may set, in milliseconds.
    pub max_wall_time_ms: u64,
    /// Bytes of each output stream that are kept, if the request does not set them.
    pub output_bytes: u64,
    /// Maximum of the same that a request may set, in bytes.
    pub max_output_bytes: u64,
}

/// Stored results.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Maximum age of a result in hours.
    pub keep_hours: u64,
    /// Maximum number of results.
    pub keep_jobs: u64,
    /// Maximum bytes of the database in use. Beyond that, the oldest results are removed.
    pub max_bytes: u64,
    /// Bytes of results that are also held in memory. While more than that waits to be written, new requests get 503.
    pub cache_bytes: usize,
}

/// The shutdown.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Time for executions to finish after SIGTERM, in milliseconds.
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
    /// The defaults, overridden by a TOML file.
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

    /// Reads the file `path`, or [`DEFAULT_FILE`] if it exists, or returns the defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Config::from_file(path),
            None if Path::new(DEFAULT_FILE).exists() => Config::from_file(Path::new(DEFAULT_FILE)),
            None => Ok(Config::default()),
        }
    }

    /// Multiplies the time-outs and default limits by [`Config::time_factor`], which is 1 in the result. Limits that
    /// a request sets are not multiplied.
    pub fn in_host_time(&self) -> Self {
        let factor = u64::from(self.time_factor);
        let mut config = self.clone();
        for time in [
            &mut config.agent.boot_timeout_ms,
            &mut config.agent.grace_ms,
            &mut config.limits.wall_time_ms,
            &mut config.limits.compile_time_ms,
            // The defaults above must not exceed it.
            &mut config.limits.max_wall_time_ms,
        ] {
            *time = time.saturating_mul(factor);
        }
        config.time_factor = 1;
        config
    }

    /// The configuration of the engine, with the run directory in the state folder.
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
    fn keys_that_the_file_omits_have_their_defaults() {
        let config: Config = toml::from_str("[vm]\nmax_concurrent = 3\n").unwrap();
        assert_eq!(config.vm.max_concurrent, 3);
        assert_eq!(config.vm.memory_mib, 512);
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn time_factor_multiplies_time_outs_and_limits_once() {
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
    fn the_printed_configuration_parses_to_itself() {
        let config = Config::default();
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
    }
}
