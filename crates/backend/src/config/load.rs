//! Reads the configuration, and derives that of the engine.

use std::path::Path;

use cloude_engine::{EngineConfig, config};

use super::error::ConfigError;
use super::types::Config;

/// The file that is read without `--config`, if it exists.
pub const DEFAULT_FILE: &str = "/etc/cloude/clouded.toml";

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
            &mut config.limits.cpu_time_ms,
            &mut config.limits.max_cpu_time_ms,
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
            isolation: self.isolation.clone(),
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
