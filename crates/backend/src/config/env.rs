//! Environment variables, which override the configuration file.

use std::str::FromStr;

use super::error::ConfigError;
use super::types::Config;

/// Applies every variable for which `get` returns a value.
pub fn apply(config: &mut Config, get: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    let env = Env { get };
    // Variables of the first Cloude, whose clients and scripts still work.
    env.set("BACKEND_SERVER_ADDR", &mut config.listen)?;
    env.set("BRIDGE_NAME", &mut config.network.bridge)?;
    env.range(config);
    env.set("LANGUAGES_CONFIG_PATH", &mut config.languages)?;
    env.set("VM_KERNEL_PATH", &mut config.kernel)?;
    env.set("VM_INITRAMFS_DIR", &mut config.images.dir)?;
    env.flag("VM_LOG_GUEST_CONSOLE", &mut config.vm.log_guest_console)?;
    // All others.
    env.set("CLOUDE_USER", &mut config.user)?;
    env.set("CLOUDE_API_AUTH", &mut config.api.auth)?;
    env.list("CLOUDE_API_ALLOWED_HOSTS", &mut config.api.allowed_hosts);
    env.set("CLOUDE_TLS_CERTIFICATE", &mut config.tls.certificate)?;
    env.set("CLOUDE_TLS_KEY", &mut config.tls.key)?;
    env.set("CLOUDE_STATE_DIR", &mut config.state_dir)?;
    env.set("CLOUDE_AGENT_TRANSPORT", &mut config.agent.transport)?;
    env.set("CLOUDE_AGENT_BINARY", &mut config.agent.binary)?;
    env.set(
        "CLOUDE_AGENT_BOOT_TIMEOUT_MS",
        &mut config.agent.boot_timeout_ms,
    )?;
    env.set("CLOUDE_IMAGES_SOURCE", &mut config.images.source)?;
    env.set(
        "CLOUDE_IMAGES_MAX_AGE_DAYS",
        &mut config.images.max_age_days,
    )?;
    env.flag("CLOUDE_IMAGES_AUTO_BUILD", &mut config.images.auto_build)?;
    env.set("CLOUDE_VM_WORKER", &mut config.vm.worker)?;
    env.set("CLOUDE_VM_MAX_CONCURRENT", &mut config.vm.max_concurrent)?;
    env.set("CLOUDE_VM_MAX_VCPUS_TOTAL", &mut config.vm.max_vcpus_total)?;
    env.set(
        "CLOUDE_VM_MEMORY_BUDGET_MIB",
        &mut config.vm.memory_budget_mib,
    )?;
    env.set("CLOUDE_VM_CPU_BASELINE", &mut config.vm.cpu_baseline)?;
    env.set("CLOUDE_VM_KERNEL_ARGS", &mut config.vm.kernel_args)?;
    env.flag("CLOUDE_POOL_ENABLED", &mut config.pool.enabled)?;
    env.set("CLOUDE_POOL_ISOLATION", &mut config.pool.isolation)?;
    env.set("CLOUDE_POOL_FLOOR", &mut config.pool.floor)?;
    env.set("CLOUDE_POOL_CEILING", &mut config.pool.ceiling)?;
    env.set("CLOUDE_POOL_MEMORY_MIB", &mut config.pool.memory_mib)?;
    env.set("CLOUDE_POOL_TEMPLATES", &mut config.pool.templates)?;
    env.set("CLOUDE_POOL_IDLE_S", &mut config.pool.idle_s)?;
    env.set("CLOUDE_POOL_BUILD_AFTER", &mut config.pool.build_after)?;
    env.set(
        "CLOUDE_POOL_BUILD_WINDOW_S",
        &mut config.pool.build_window_s,
    )?;
    env.set("CLOUDE_POOL_DISK", &mut config.pool.disk)?;
    env.set("CLOUDE_QUEUE_CAPACITY", &mut config.queue.capacity)?;
    env.set("CLOUDE_QUOTA_QUEUED", &mut config.quota.queued)?;
    env.set("CLOUDE_QUOTA_CONCURRENT", &mut config.quota.concurrent)?;
    env.set("CLOUDE_QUOTA_MEMORY_MIB", &mut config.quota.memory_mib)?;
    env.set(
        "CLOUDE_QUOTA_REQUESTS_PER_S",
        &mut config.quota.requests_per_s,
    )?;
    env.set("CLOUDE_STORE_MAX_BYTES", &mut config.store.max_bytes)?;
    env.set(
        "CLOUDE_BODY_BYTES_IN_FLIGHT",
        &mut config.limits.body_bytes_in_flight,
    )?;
    env.set("CLOUDE_BODY_TIMEOUT_MS", &mut config.limits.body_timeout_ms)?;
    env.set(
        "CLOUDE_RESULT_BYTES_IN_FLIGHT",
        &mut config.limits.result_bytes_in_flight,
    )?;
    env.set(
        "CLOUDE_CONNECTIONS_PER_ADDRESS",
        &mut config.limits.connections_per_address,
    )?;
    env.set(
        "CLOUDE_WRITE_TIMEOUT_MS",
        &mut config.limits.write_timeout_ms,
    )?;
    env.set("CLOUDE_WALL_TIME_MS", &mut config.limits.wall_time_ms)?;
    env.set("CLOUDE_CPU_TIME_MS", &mut config.limits.cpu_time_ms)?;
    env.set("CLOUDE_CALLBACKS_SECRET", &mut config.callbacks.secret)?;
    env.set("CLOUDE_SHUTDOWN_GRACE_MS", &mut config.shutdown.grace_ms)?;
    env.flag("CLOUDE_NETWORK_ENABLED", &mut config.network.enabled)?;
    env.set("CLOUDE_ISOLATION_REQUIRE", &mut config.isolation.require)?;
    env.set("CLOUDE_ISOLATION_SKIP", &mut config.isolation.skip)?;
    env.set("CLOUDE_TIME_FACTOR", &mut config.time_factor)?;
    Ok(())
}

struct Env<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Env<'_> {
    /// The value of a variable. An empty one counts as not set.
    fn value(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.trim().is_empty())
    }

    fn set<T: FromStr>(&self, name: &'static str, into: &mut T) -> Result<(), ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(value) = self.value(name) else {
            return Ok(());
        };
        *into = value
            .parse()
            .map_err(|error: T::Err| ConfigError::Variable {
                name,
                value: value.clone(),
                reason: error.to_string(),
            })?;
        Ok(())
    }

    /// Comma-separated texts.
    fn list(&self, name: &'static str, into: &mut Vec<String>) {
        if let Some(value) = self.value(name) {
            let items = value.split(',').map(str::trim);
            *into = items
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect();
        }
    }

    fn flag(&self, name: &'static str, into: &mut bool) -> Result<(), ConfigError> {
        let Some(value) = self.value(name) else {
            return Ok(());
        };
        *into = match value.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => {
                let reason = "must be `true` or `false`".to_owned();
                return Err(ConfigError::Variable {
                    name,
                    value,
                    reason,
                });
            }
        };
        Ok(())
    }

    /// IP_RANGE and IP_MASK work separately: a mask replaces that of the range.
    fn range(&self, config: &mut Config) {
        if let Some(range) = self.value("IP_RANGE") {
            config.network.range = range;
            config.network.mask = None;
        }
        if let Some(mask) = self.value("IP_MASK") {
            let addresses = config
                .network
                .range
                .split('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            config.network.range = addresses;
            config.network.mask = Some(mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CpuBaseline, Transport};

    fn with(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        apply(&mut config, &|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })?;
        Ok(config)
    }

    #[test]
    fn variables_of_the_original_work() {
        let config = with(&[
            ("BACKEND_SERVER_ADDR", "0.0.0.0:9000"),
            ("BRIDGE_NAME", "br7"),
            ("IP_RANGE", "10.9.0.0"),
            ("IP_MASK", "255.255.0.0"),
            ("LANGUAGES_CONFIG_PATH", "/l"),
            ("VM_KERNEL_PATH", "/k"),
            ("VM_INITRAMFS_DIR", "/i"),
            ("VM_LOG_GUEST_CONSOLE", "1"),
            ("CLOUDE_AGENT_TRANSPORT", "IP"),
            ("CLOUDE_TIME_FACTOR", "20"),
            ("CLOUDE_API_ALLOWED_HOSTS", "a.example, b.example"),
        ])
        .unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:9000");
        assert_eq!(config.network.bridge, "br7");
        assert_eq!(config.network.range, "10.9.0.0");
        assert_eq!(config.network.mask.as_deref(), Some("255.255.0.0"));
        assert_eq!(config.languages.to_str(), Some("/l"));
        assert_eq!(config.kernel.to_str(), Some("/k"));
        assert_eq!(config.images.dir.to_str(), Some("/i"));
        assert!(config.vm.log_guest_console);
        assert_eq!(config.agent.transport, Transport::Ip);
        assert_eq!(config.time_factor, 20);
        assert_eq!(config.api.allowed_hosts, ["a.example", "b.example"]);
    }

    #[test]
    fn a_cpu_baseline_is_one_of_three() {
        let config = with(&[("CLOUDE_VM_CPU_BASELINE", "x86-64-v3")]).unwrap();
        assert_eq!(config.vm.cpu_baseline, CpuBaseline::V3);
        let error = with(&[("CLOUDE_VM_CPU_BASELINE", "x86-64-v4")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid environment variable CLOUDE_VM_CPU_BASELINE=x86-64-v4: `x86-64-v4` is no CPU baseline; use `host`, `x86-64-v2` or `x86-64-v3`"
        );
    }

    #[test]
    fn walls_are_separated_by_commas() {
        let config = with(&[("CLOUDE_ISOLATION_REQUIRE", "seccomp, cgroup")]).unwrap();
        assert_eq!(config.isolation.require.to_string(), "seccomp, cgroup");
        let error = with(&[("CLOUDE_ISOLATION_SKIP", "moat")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`moat`") && error.contains("core_scheduling"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_value_names_the_variable() {
        let error = with(&[("BACKEND_SERVER_ADDR", "nowhere")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("BACKEND_SERVER_ADDR") && error.contains("nowhere"),
            "{error}"
        );
        let error = with(&[("VM_LOG_GUEST_CONSOLE", "maybe")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("VM_LOG_GUEST_CONSOLE"), "{error}");
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        assert_eq!(with(&[("BRIDGE_NAME", "")]).unwrap(), Config::default());
    }
}
