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
    /// A sysctl could not be read or written.
    #[error("{path}: {source}")]
    Sysctl {
        /// The file of /proc/sys.
        path: PathBuf,
        /// The failed system call's error.
        source: io::Error,
    },
}
