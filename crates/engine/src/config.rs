//! Configuration of the engine. Every value has a default; paths default to those of an installation
//! ([`cloude_protocol::paths`]).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloude_protocol::api::IMAGE_MAX_AGE_DAYS;
use cloude_protocol::language::Language;
use cloude_protocol::paths::{self, cache_dir};
pub use cloude_vmm::control::CpuBaseline;
pub use cloude_vmm::jail::{Wall, Walls};
use serde::{Deserialize, Serialize};

use crate::machine::MEMORY_STEP_MIB;

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Holds a lock, and notes for the start after a crash: workers, the last address, a sysctl to restore.
    /// One engine at a time may use it.
    pub run_dir: PathBuf,
    /// The folder of language files.
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
    /// The network of VMs that have one.
    pub network: Network,
    /// The jail of workers.
    pub isolation: Isolation,
    /// Wall-clock limit of each command that warms a template, in milliseconds.
    pub warm_time_ms: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        EngineConfig {
            run_dir: paths::state_dir(root).join("run"),
            languages: paths::languages(root),
            kernel: paths::kernel(),
            images: Images::default(),
            agent: Agent::default(),
            vm: Vm::default(),
            pool: Pool::default(),
            network: Network::default(),
            isolation: Isolation::default(),
            warm_time_ms: 60_000,
        }
    }
}

impl EngineConfig {
    /// True if a VM has a network device: it reaches the internet, or its agent is reached over IP.
    pub fn has_network_device(&self, outbound: bool) -> bool {
        outbound || self.agent.transport == Transport::Ip
    }

    /// The kernel's ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        vmlinux(&self.kernel)
    }
}

/// The ELF file of a kernel folder or of a bare kernel. One stat(2).
pub fn vmlinux(kernel: &Path) -> PathBuf {
    match kernel.is_dir() {
        true => kernel.join("vmlinux"),
        false => kernel.to_owned(),
    }
}

/// The settings that all VMs share.
#[derive(Clone, Debug, PartialEq)]
pub struct Vm {
    /// The `cloude-vmm` binary.
    pub worker: PathBuf,
    /// vCPUs of a language whose file sets none, 1 to 8.
    pub vcpus: u8,
    /// Guest memory of a language whose file sets none, in MiB.
    pub memory_mib: u64,
    /// The CPU features that guests see. Templates move between hosts of one vendor with the same named
    /// baseline.
    pub cpu_baseline: CpuBaseline,
    /// Appended to the kernel's command line.
    pub kernel_args: String,
    /// Copies the guests' serial consoles to the log.
    pub log_guest_console: bool,
}

impl Vm {
    /// The vCPUs and the guest memory in MiB of an execution that asks for neither.
    pub fn default_machine(&self, language: &Language) -> (u8, u64) {
        let machine = &language.machine;
        let memory_mib = machine.memory_mib.unwrap_or(self.memory_mib);
        (
            machine.vcpus.unwrap_or(self.vcpus),
            memory_mib.next_multiple_of(MEMORY_STEP_MIB),
        )
    }
}

impl Default for Vm {
    fn default() -> Self {
        Vm {
            worker: paths::sibling("cloude-vmm"),
            vcpus: 1,
            memory_mib: 512,
            cpu_baseline: CpuBaseline::Host,
            kernel_args: String::new(),
            log_guest_console: false,
        }
    }
}

/// Language images.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// The folder of `NAME.cpio` and `NAME.json`.
    pub dir: PathBuf,
    /// Builds a missing image at the first request for its language.
    pub auto_build: bool,
    /// The source of images that the engine builds.
    pub source: ImageSource,
    /// `cloude doctor` reports an image as old that was not compared with its source for this many days; 0 disables
    /// the report.
    pub max_age_days: u64,
}

/// The source that a language's image is built from.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// The registry, or Debian packages of the same version if the registry is not reachable.
    #[default]
    Auto,
    /// `image.reference` of the language file.
    Registry,
    /// `image.debian` of the language file.
    Debian,
}

/// The agent in the guest.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// How the host connects to it.
    pub transport: Transport,
    /// Its static binary.
    pub binary: PathBuf,
    /// Time-out from the worker's start until the agent is ready, in milliseconds.
    pub boot_timeout_ms: u64,
    /// Added to an execution's wall-clock limits before the VM counts as stuck, in milliseconds.
    pub grace_ms: u64,
}

/// How the host connects to the agent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A vsock stream through the worker. Needs no network.
    #[default]
    Vsock,
    /// TCP to the VM's address. Every VM then has a network device.
    Ip,
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "vsock" => Ok(Transport::Vsock),
            "ip" => Ok(Transport::Ip),
            other => Err(format!("`{other}` is no transport; use `vsock` or `ip`")),
        }
    }
}

/// Who shares a template.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum PoolIsolation {
    /// All executions of a language and machine.
    #[default]
    Shared,
    /// The executions of one API key. No memory page is then shared by VMs of different keys, and each key has its own
    /// kernel and library addresses.
    PerKey,
}

impl std::str::FromStr for PoolIsolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "shared" => Ok(PoolIsolation::Shared),
            "per-key" => Ok(PoolIsolation::PerKey),
            other => Err(format!(
                "`{other}` is no isolation of the pool; use `shared` or `per-key`"
            )),
        }
    }
}

/// Templates, and the forks of them that wait for executions.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Forks VMs from templates; if false, every VM is booted.
    pub enabled: bool,
    /// Who shares a template. Whoever launches VMs applies it ([`crate::MachineSpec::template_owner`]).
    pub isolation: PoolIsolation,
    /// Paused forks for each template in use, at least.
    pub floor: usize,
    /// Paused forks of one template, at most.
    pub ceiling: usize,
    /// Private memory of all paused forks together, in MiB, not counting the templates.
    pub memory_mib: u64,
    /// Templates in memory, and on the disk; the least recently used one is removed first. Each holds its
    /// guest's memory.
    pub templates: usize,
    /// Where templates are stored across restarts, in its folder `templates`: an absolute path, `auto` for the
    /// cache folder, or `off`.
    pub disk: String,
    /// A template without requests for this many seconds has no paused forks.
    pub idle_s: u64,
    /// A machine that is not its language's default gets a template after this many requests within
    /// `build_window_s`.
    pub build_after: usize,
    /// Seconds.
    pub build_window_s: u64,
}

/// The network of VMs that have one.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Accepts requests with `network: true`. `agent.transport = "ip"` needs a network in any case.
    pub enabled: bool,
    /// The bridge that the engine creates and removes, at most 15 bytes. `auto`: the first free name of `cloude0`,
    /// `cloude1` and so on.
    pub bridge: String,
    /// Addresses for VMs: `auto` for a subnet to which the host has no route; `A.B.C.D/N`, `A.B.C.D` with `mask`, or `A.B.C.D-E.F.G.H`. The first host
    /// address of the subnet is the bridge's own.
    pub range: String,
    /// The subnet's mask, `16` or `255.255.0.0`, where `range` has none.
    pub mask: Option<String>,
    /// Name servers in the guests' /etc/resolv.conf.
    pub dns: Vec<Ipv4Addr>,
    /// Private networks that VMs may reach, `A.B.C.D/N`. All others are blocked.
    pub allow: Vec<String>,
    /// Destination ports of TCP and UDP that VMs cannot reach anywhere.
    pub deny_ports: Vec<u16>,
    /// MTU of the bridge and of every guest's device, in bytes.
    pub mtu: u16,
    /// Limits of each VM's network device.
    pub limits: NetworkLimits,
}

/// Limits of a VM's network device. 0 is no limit; each allows a burst of one second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkLimits {
    /// Packets per second in each direction; more are delayed.
    pub packets_per_s: u64,
    /// Bytes per second in each direction; more are delayed.
    pub bytes_per_s: u64,
    /// New connections and UDP flows per second; more are dropped and counted as denied.
    pub connections_per_s: u64,
}

/// The jail of workers. Each has every wall that the host can give.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Isolation {
    /// The engine does not start on a host that lacks one of these walls. It says what others are missing.
    pub require: Walls,
    /// Walls that are not set up.
    pub skip: Walls,
    /// The first of 65536 user numbers of the host, which workers get one each if the engine runs as root. No other
    /// use of the host may overlap with them.
    pub first_uid: u32,
}

impl Default for Isolation {
    fn default() -> Self {
        Isolation {
            require: Walls::NONE,
            skip: Walls::NONE,
            // Above those of systemd's containers, below 2^31 (systemd, "Users, Groups, UIDs and GIDs").
            first_uid: 0x7000_0000,
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Images {
            dir: paths::images(),
            auto_build: true,
            source: ImageSource::Auto,
            max_age_days: IMAGE_MAX_AGE_DAYS,
        }
    }
}

impl Agent {
    /// [`Agent::grace_ms`].
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

impl Default for Agent {
    fn default() -> Self {
        Agent {
            transport: Transport::Vsock,
            binary: paths::sibling("cloude-agent"),
            boot_timeout_ms: 10_000,
            grace_ms: 5_000,
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            enabled: true,
            isolation: PoolIsolation::Shared,
            floor: 2,
            ceiling: 16,
            memory_mib: 256,
            templates: 8,
            disk: "auto".into(),
            idle_s: 600,
            build_after: 3,
            build_window_s: 600,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Network {
            enabled: true,
            bridge: "auto".into(),
            range: "auto".into(),
            mask: None,
            dns: vec![Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)],
            allow: Vec::new(),
            deny_ports: vec![25],
            mtu: 1500,
            limits: NetworkLimits::default(),
        }
    }
}

impl Default for NetworkLimits {
    fn default() -> Self {
        NetworkLimits {
            packets_per_s: 20_000,
            bytes_per_s: 12_500_000,
            connections_per_s: 100,
        }
    }
}

impl Pool {
    /// The parent of the `templates` folder; `None` if templates are not stored.
    pub fn disk_dir(&self) -> Option<PathBuf> {
        match self.disk.as_str() {
            "off" => None,
            "auto" => Some(cache_dir()),
            dir => Some(PathBuf::from(dir)),
        }
    }
}

impl std::str::FromStr for ImageSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(ImageSource::Auto),
            "registry" => Ok(ImageSource::Registry),
            "debian" => Ok(ImageSource::Debian),
            other => Err(format!(
                "`{other}` is no image source; use `auto`, `registry` or `debian`"
            )),
        }
    }
}
