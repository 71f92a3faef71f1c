//! The configuration of `clouded`: defaults, overridden by a TOML file, then by environment variables, then by flags.
//! docs/configuration.md has every key.

mod api;
mod callbacks;
mod env;
mod error;
mod limits;
mod load;
mod tls;
mod types;
mod validate;

pub use api::{Api, Auth, KeyPolicy, Listen};
pub use callbacks::{Callbacks, SigningSecret};
pub use cloude_engine::config::{
    Agent, CpuBaseline, ImageSource, Images, Isolation, Network, Pool, PoolIsolation, Transport,
    Walls,
};
pub use cloude_protocol::paths::cache_dir;
pub use env::apply as apply_env;
pub use error::ConfigError;
pub use limits::Limits;
pub use load::DEFAULT_FILE;
pub use tls::Tls;
pub use types::{Config, Queue, Quota, Shutdown, Store, Vm};
