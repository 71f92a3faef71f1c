//! The files of an initramfs for the agent.
//!
//! Segments are concatenated. The first is the image: its tree and [`IMAGE_CONFIG`]. Small ones are made at boot: the
//! agent and the kernel's modules, and [`BOOT_CONFIG`]. A new agent or kernel needs no new image.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The directory of all files of Cloude in the guest, mode 0700.
pub const DIR: &str = "/.cloude";
/// The agent; `rdinit=` on the kernel's command line.
pub const AGENT: &str = "/.cloude/agent";
/// An [`ImageConfig`], in the image's segment.
pub const IMAGE_CONFIG: &str = "/.cloude/image.json";
/// A [`BootConfig`], in the boot segment. The agent reads and deletes it.
pub const BOOT_CONFIG: &str = "/.cloude/boot.json";
/// Uncompressed kernel modules.
pub const MODULES_DIR: &str = "/.cloude/modules";
/// File names in the order of loading, one per line.
pub const MODULES_LIST: &str = "/.cloude/modules/modules.list";

/// How to run programs in the image: a part of `config` in the OCI image configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    /// Absolute, or empty.
    pub working_dir: String,
    /// The image's entry point.
    pub entrypoint: Vec<String>,
    /// The image's command.
    pub cmd: Vec<String>,
}

/// The configuration of one VM.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BootConfig {
    /// The bearer token of requests to the agent: 64 hexadecimal digits from the host's random generator.
    pub token: String,
    /// The VM's host name.
    pub hostname: String,
    /// The network, if the VM has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
    /// Copy the output of programs to the console.
    #[serde(default)]
    pub copy_output_to_console: bool,
    /// Serve no requests: run the image's shell on the console, and power off when it ends.
    #[serde(default)]
    pub shell: bool,
    /// The VM is to be warmed ([`crate::agent::WarmRequest`]), saved and forked. It executes only with an
    /// [`crate::agent::Identity`], which also configures its network interface.
    #[serde(default)]
    pub template: bool,
}

/// The VM's one Ethernet interface.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The VM's address.
    pub address: Ipv4Addr,
    /// Prefix length of the subnet, 1 to 32.
    pub prefix_len: u8,
    /// The default route, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers for /etc/resolv.conf.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// MTU in bytes; 1500 if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}
