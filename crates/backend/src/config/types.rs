//! The keys of the configuration with their defaults. The engine defines some of the tables.

use std::net::SocketAddr;
use std::path::PathBuf;

use cloude_engine::config::{Agent, CpuBaseline, Images, Isolation, Network, Pool};
use cloude_protocol::paths;
use serde::{Deserialize, Serialize};

use super::api::{Api, KeyPolicy, Listen};
use super::callbacks::Callbacks;
use super::limits::Limits;
use super::tls::Tls;

/// The whole configuration. Every key has a default.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the HTTP server.
    pub listen: Listen,
    /// The account that clouded changes to when it is started as root. Empty: `cloude`, if it exists and has access to
    /// all files that the server needs.
    pub user: String,
    /// Folder of the job store, the lock and the run directory.
    pub state_dir: PathBuf,
    /// Folder of the languages.
    pub languages: PathBuf,
    /// A kernel folder (`vmlinux`, `modules/`) or a bare `vmlinux`.
    pub kernel: PathBuf,
    /// Who may use the API.
    pub api: Api,
    /// TLS.
    pub tls: Tls,
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
    /// Quotas of each API key.
    pub quota: Quota,
    /// Limits of requests.
    pub limits: Limits,
    /// Callbacks to clients.
    pub callbacks: Callbacks,
    /// The network of VMs that have one.
    pub network: Network,
    /// The jail of workers.
    pub isolation: Isolation,
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

/// Quotas of each API key; 0: no limit. Without keys, of all clients together.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Maximum executions that wait for a VM, and again that wait for their image.
    pub queued: usize,
    /// Maximum VMs at once. Further executions wait.
    pub concurrent: usize,
    /// Maximum memory of those VMs in MiB. Further executions wait.
    pub memory_mib: u64,
    /// Maximum requests for executions per second.
    pub requests_per_s: u32,
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

impl Config {
    /// How this server treats API keys.
    pub fn key_policy(&self) -> KeyPolicy {
        self.api.key_policy(&self.listen)
    }
}

impl Default for Config {
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Config {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))),
            user: String::new(),
            state_dir: paths::state_dir(root),
            languages: paths::languages(root),
            kernel: paths::kernel(),
            api: Api::default(),
            tls: Tls::default(),
            images: Images::default(),
            agent: Agent::default(),
            vm: Vm::default(),
            pool: Pool::default(),
            queue: Queue::default(),
            quota: Quota::default(),
            limits: Limits::default(),
            callbacks: Callbacks::default(),
            network: Network::default(),
            isolation: Isolation::default(),
            store: Store::default(),
            shutdown: Shutdown::default(),
            time_factor: 1,
        }
    }
}

impl Default for Vm {
    fn default() -> Self {
        let engine = cloude_engine::config::Vm::default();
        Vm {
            worker: engine.worker,
            max_concurrent: 0,
            memory_budget_mib: 0,
            vcpus: engine.vcpus,
            max_vcpus_total: 0,
            memory_mib: engine.memory_mib,
            max_memory_mib: 8192,
            cpu_baseline: engine.cpu_baseline,
            kernel_args: engine.kernel_args,
            log_guest_console: engine.log_guest_console,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue { capacity: 256 }
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
