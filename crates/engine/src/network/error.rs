//! Errors of the network.

use std::io;
use std::path::PathBuf;

use super::addresses::{Exhausted, RangeError};

/// The network cannot be set up, or a VM cannot be attached to it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The engine shuts down.
    #[error("the network is down: the engine is stopping")]
    ShutDown,
    /// `network.range` is invalid.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// `network.allow` is invalid.
    #[error("`network.allow` has `{0}`, which is not a network like 10.1.0.0/16")]
    Allow(String),
    /// No address is free.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Opening a netlink socket failed.
    #[error("opening a netlink socket: {0}")]
    Netlink(#[source] io::Error),
    /// The kernel refused a change to a link.
    #[error("{what}: {source}; the network needs CAP_NET_ADMIN (run clouded as root)")]
    Link {
        /// The operation that failed.
        what: String,
        /// The kernel's error.
        source: Box<rtnetlink::Error>,
    },
    /// A link that was just created does not exist.
    #[error("{0} vanished while it was set up")]
    Vanished(String),
    /// Creating a TAP failed.
    #[error("creating the TAP {name}: {source}; the network needs /dev/net/tun and CAP_NET_ADMIN")]
    Tap {
        /// The TAP's name.
        name: String,
        /// The failed system call's error.
        source: io::Error,
    },
    /// `nft` could not be executed.
    #[error("running `nft`: {0}; install the package nftables")]
    Nft(#[source] io::Error),
    /// `nft` exited with an error.
    #[error("nft refused the rules: {0}")]
    NftRefused(String),
    /// A link of the configured name exists, and Cloude did not create it.
    #[error(
        "the link {0} exists and was not created by Cloude; set `network.bridge` (BRIDGE_NAME) to another name, or to `auto`"
    )]
    ForeignBridge(String),
    /// Another engine, which does not run, has left its bridge.
    #[error(
        "the bridge {bridge} was left by another clouded, with the run directory {run_dir}, which does not run; start that one, remove the bridge (`ip link delete {bridge}`), or set `network.bridge` (BRIDGE_NAME) to another name"
    )]
    BridgeLeft {
        /// Its name.
        bridge: String,
        /// The run directory of the engine that created it.
        run_dir: String,
    },
    /// Another engine uses the bridge.
    #[error(
        "the bridge {bridge} is in use by another clouded (process {process}, run directory {run_dir}); set `network.bridge` (BRIDGE_NAME) and `network.range` (IP_RANGE) to others, or to `auto`"
    )]
    BridgeInUse {
        /// Its name.
        bridge: String,
        /// The process that uses it.
        process: String,
        /// Its run directory.
        run_dir: String,
    },
    /// `network.bridge = "auto"` found no name.
    #[error("the links cloude0 to cloude{} exist; set `network.bridge` (BRIDGE_NAME)", .0 - 1)]
    NoBridge(usize),
    /// `network.range = "auto"` found no subnet.
    #[error(
        "this host has routes to every subnet that `network.range = \"auto\"` tries (172.16.0.0/16 to 172.30.0.0/16, 10.64.0.0/16 to 10.127.0.0/16); set `network.range` (IP_RANGE)"
    )]
    NoRange,
    /// The lock of a bridge cannot be taken.
    #[error("locking the bridge with an abstract Unix socket: {0}")]
    Lock(#[source] io::Error),
    /// A sysctl or a file of the run directory could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failed system call's error.
        source: io::Error,
    },
}
