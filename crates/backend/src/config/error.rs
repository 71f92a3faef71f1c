//! Errors of the configuration.

use std::io;
use std::path::PathBuf;

use cloude_engine::network::RangeError;

/// The configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("invalid configuration `{path}`: {source}")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    /// An environment variable has an invalid value.
    #[error("invalid environment variable {name}={value}: {reason}")]
    Variable {
        name: &'static str,
        value: String,
        /// The valid values.
        reason: String,
    },
    /// A key has a value out of range.
    #[error("`{key}` {reason}")]
    Value {
        /// The key with its table, as `vm.vcpus`.
        key: &'static str,
        /// The valid values.
        reason: String,
    },
    /// `network.range` or `network.mask` is invalid.
    #[error("invalid `network.range`: {0}")]
    Range(#[from] RangeError),
}
