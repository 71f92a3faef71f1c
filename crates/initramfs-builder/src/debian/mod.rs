//! Debian packages as a source: mmdebstrap unpacks them, and its tar is the image's one layer.
//!
//! Packages are unpacked and not configured (`--variant=extract`), which needs no root and a tenth of
//! the time. What programs need of what the maintainer scripts would have done is made by our own
//! hooks: links of the merged /usr, accounts, certificates, the time zone, the usual alternatives.

mod process;
mod sources;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cloude_protocol::boot::ImageConfig;

pub(crate) use process::Mmdebstrap;
use sha2::{Digest as _, Sha256};

use crate::source::Packages;

/// In every image: accounts, the file system's directories, `/bin/sh`, the C.UTF-8 locale, and what programs
/// and scripts expect of a small distribution.
pub const BASE_PACKAGES: [&str; 24] = [
    "base-files",
    "base-passwd",
    "bash",
    "bzip2",
    "ca-certificates",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "file",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "netbase",
    "procps",
    "sed",
    "tar",
    "tzdata",
    "xz-utils",
];

/// Hooks of mmdebstrap: before packages are unpacked, after that, and last.
const SETUP: &str = include_str!("setup.sh");
const FINISH: &str = include_str!("finish.sh");
const SETTLE: &str = include_str!("settle.sh");

/// Debian's own default, /etc/profile.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Identifies the hooks and base packages of this version: 8 hexadecimal digits of their SHA-256.
pub(crate) fn recipe() -> String {
    let hooks = [SETUP, FINISH, SETTLE];
    let digest = Sha256::digest(hooks.concat() + &BASE_PACKAGES.concat());
    const_hex::encode(&digest[..4])
}

/// Mirror of Debian.
#[derive(Clone, Debug, Default)]
pub struct DebianOptions {
    /// The mirror's URL. Without one: the host's own apt sources for the suite, else deb.debian.org.
    pub mirror: Option<String>,
    /// Options for apt, as pairs of apt.conf(5): `("Acquire::Check-Valid-Until", "false")`.
    pub apt: Vec<(String, String)>,
}

/// Packages could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// mmdebstrap is not installed.
    #[error("building from Debian packages needs mmdebstrap: run `apt-get install mmdebstrap`")]
    NotInstalled,
    /// mmdebstrap could not be started.
    #[error("cannot start mmdebstrap: {0}")]
    Start(#[source] io::Error),
    /// mmdebstrap failed; the message has the end of its output.
    #[error("mmdebstrap failed ({status}):\n{output}")]
    Failed {
        /// Its exit status.
        status: String,
        /// The last lines that it printed.
        output: String,
    },
    /// A directory for it could not be created.
    #[error("cannot create `{path}` for mmdebstrap: {source}")]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Environment of programs: Debian's PATH, and the variables of the language.
pub(crate) fn image_config(packages: &Packages) -> ImageConfig {
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    env.extend(packages.env.clone());
    ImageConfig {
        env: env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        cmd: vec!["/bin/sh".to_owned()],
        ..ImageConfig::default()
    }
}

/// All packages to ask for, sorted, each once.
fn package_names(packages: &Packages) -> Vec<&str> {
    let asked = packages.packages.iter().map(String::as_str);
    let mut all: Vec<&str> = asked.chain(BASE_PACKAGES).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A word of a shell command.
fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
