//! Checks of the configuration before the start.

use std::path::Path;

use cloude_engine::network::validate_range;
use ipnet::{IpNet, Ipv4Net};

use super::api::Auth;
use super::error::ConfigError;
use super::types::Config;

fn check(ok: bool, key: &'static str, reason: impl Into<String>) -> Result<(), ConfigError> {
    if ok {
        Ok(())
    } else {
        Err(ConfigError::Value {
            key,
            reason: reason.into(),
        })
    }
}

impl Config {
    /// Checks all values. Does not look at the host.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let at_least_1 = [
            ("queue.capacity", self.queue.capacity as u64),
            ("agent.boot_timeout_ms", self.agent.boot_timeout_ms),
            ("pool.build_after", self.pool.build_after as u64),
            ("limits.body_timeout_ms", self.limits.body_timeout_ms),
            ("limits.write_timeout_ms", self.limits.write_timeout_ms),
            ("limits.wall_time_ms", self.limits.wall_time_ms),
            ("limits.compile_time_ms", self.limits.compile_time_ms),
        ];
        for (key, value) in at_least_1 {
            check(value >= 1, key, "must be at least 1")?;
        }
        check(
            self.time_factor >= 1,
            "time_factor",
            "must be at least 1, the value for a host that is not emulated",
        )?;
        check(
            self.store.max_bytes >= 16 << 20,
            "store.max_bytes",
            "must be at least 16777216 (16 MiB)",
        )?;
        check(
            self.api.auth != Auth::Off || self.listen.is_local(),
            "api.auth",
            format!(
                "may be `off` on a loopback address or a Unix socket alone, and `listen` is {}: set it to `auto`",
                self.listen
            ),
        )?;
        self.validate_tls()?;
        self.validate_vm()?;
        self.validate_pool()?;
        self.validate_limits()?;
        self.validate_network()?;
        self.validate_callbacks()?;
        self.validate_isolation()
    }

    fn validate_tls(&self) -> Result<(), ConfigError> {
        let tls = &self.tls;
        check(
            tls.certificate.as_os_str().is_empty() == tls.key.as_os_str().is_empty(),
            "tls.key",
            "must be set exactly if `tls.certificate` is",
        )?;
        check(
            !tls.is_enabled() || self.listen.ip().is_some(),
            "tls.certificate",
            format!("needs a TCP address, and `listen` is {}", self.listen),
        )
    }

    fn validate_vm(&self) -> Result<(), ConfigError> {
        let vm = &self.vm;
        check((1..=8).contains(&vm.vcpus), "vm.vcpus", "must be 1 to 8")?;
        check(
            vm.memory_mib >= 64,
            "vm.memory_mib",
            "must be at least 64 MiB",
        )?;
        check(
            vm.max_memory_mib >= vm.memory_mib,
            "vm.max_memory_mib",
            format!("must be at least `vm.memory_mib` ({})", vm.memory_mib),
        )
    }

    fn validate_isolation(&self) -> Result<(), ConfigError> {
        let isolation = &self.isolation;
        let both = isolation
            .require
            .iter()
            .find(|wall| isolation.skip.has(*wall));
        check(
            both.is_none(),
            "isolation.skip",
            format!(
                "must not have {}, which `isolation.require` has",
                both.map_or("", |wall| wall.name())
            ),
        )?;
        // 65536 numbers from the first on; u32::MAX is no user.
        check(
            (1..=u32::MAX - (1 << 16)).contains(&isolation.first_uid),
            "isolation.first_uid",
            "must be 1 to 4294901759",
        )
    }

    fn validate_pool(&self) -> Result<(), ConfigError> {
        let pool = &self.pool;
        check(
            pool.ceiling >= pool.floor,
            "pool.ceiling",
            format!("must be at least `pool.floor` ({})", pool.floor),
        )?;
        check(
            pool.templates >= 1,
            "pool.templates",
            "must be at least 1; `pool.enabled = false` turns forks off",
        )?;
        let is_keyword = matches!(pool.disk.as_str(), "auto" | "off");
        check(
            is_keyword || Path::new(&pool.disk).is_absolute(),
            "pool.disk",
            "must be `auto`, `off` or an absolute path",
        )
    }

    fn validate_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        check(
            limits.body_bytes >= limits.code_bytes,
            "limits.body_bytes",
            format!(
                "must be at least `limits.code_bytes` ({})",
                limits.code_bytes
            ),
        )?;
        check(
            limits.body_bytes_in_flight >= limits.body_bytes,
            "limits.body_bytes_in_flight",
            format!(
                "must be at least `limits.body_bytes` ({})",
                limits.body_bytes
            ),
        )?;
        check(
            limits.max_wall_time_ms >= limits.wall_time_ms.max(limits.compile_time_ms),
            "limits.max_wall_time_ms",
            format!(
                "must be at least `limits.wall_time_ms` ({}) and `limits.compile_time_ms` ({})",
                limits.wall_time_ms, limits.compile_time_ms
            ),
        )?;
        check(
            limits.max_output_bytes >= limits.output_bytes,
            "limits.max_output_bytes",
            format!(
                "must be at least `limits.output_bytes` ({})",
                limits.output_bytes
            ),
        )?;
        check(
            limits.max_artifact_bytes >= limits.artifact_bytes,
            "limits.max_artifact_bytes",
            format!(
                "must be at least `limits.artifact_bytes` ({})",
                limits.artifact_bytes
            ),
        )?;
        self.validate_process_limits()
    }

    fn validate_process_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        // Without a default, a maximum binds those requests alone that name a limit, so that it needs one where the guest
        // has none of its own.
        let table = [
            (
                "limits.max_cpu_time_ms",
                limits.cpu_time_ms,
                limits.max_cpu_time_ms,
                true,
            ),
            (
                "limits.max_processes",
                limits.processes.into(),
                limits.max_processes.into(),
                false,
            ),
            (
                "limits.max_open_files",
                limits.open_files,
                limits.max_open_files,
                false,
            ),
            (
                "limits.max_file_bytes",
                limits.file_bytes,
                limits.max_file_bytes,
                true,
            ),
            (
                "limits.max_disk_bytes",
                limits.disk_bytes,
                limits.max_disk_bytes,
                true,
            ),
            (
                "limits.max_stack_bytes",
                limits.stack_bytes,
                limits.max_stack_bytes,
                false,
            ),
        ];
        for (key, default, most, needs_default) in table {
            check(
                most == 0 || default <= most,
                key,
                format!("must be 0, or at least the default ({default})"),
            )?;
            check(
                most == 0 || default > 0 || !needs_default,
                key,
                "needs a default (the key without `max_`), or requests that name no limit would have none",
            )?;
        }
        Ok(())
    }

    fn validate_callbacks(&self) -> Result<(), ConfigError> {
        let callbacks = &self.callbacks;
        let least = [
            ("callbacks.attempts", u64::from(callbacks.attempts)),
            ("callbacks.retry_ms", callbacks.retry_ms),
            ("callbacks.timeout_ms", callbacks.timeout_ms),
        ];
        for (key, value) in least {
            check(value >= 1, key, "must be at least 1")?;
        }
        for cidr in &callbacks.allow {
            check(
                cidr.parse::<IpNet>().is_ok(),
                "callbacks.allow",
                format!("has `{cidr}`, which is not a network like 10.1.0.0/16"),
            )?;
        }
        Ok(())
    }

    fn validate_network(&self) -> Result<(), ConfigError> {
        let network = &self.network;
        // IFNAMSIZ is 16 with the final NUL. These characters need no quotes in a script of nft.
        let name = &network.bridge;
        check(
            !name.is_empty()
                && name.len() <= 15
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                && !name.starts_with('-'),
            "network.bridge",
            "must be 1 to 15 letters, digits, `-` or `_`",
        )?;
        check(network.mtu >= 576, "network.mtu", "must be at least 576")?;
        for cidr in &network.allow {
            check(
                cidr.parse::<Ipv4Net>().is_ok(),
                "network.allow",
                format!("has `{cidr}`, which is not a network like 10.1.0.0/16"),
            )?;
        }
        validate_range(&network.range, network.mask.as_deref())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_key() {
        type Spoil = fn(&mut Config);
        let table: [(&str, Spoil); 17] = [
            ("vm.vcpus", |c| c.vm.vcpus = 9),
            ("vm.max_memory_mib", |c| c.vm.max_memory_mib = 100),
            ("queue.capacity", |c| c.queue.capacity = 0),
            ("pool.build_after", |c| c.pool.build_after = 0),
            ("tls.key", |c| c.tls.certificate = "/c.pem".into()),
            ("tls.certificate", |c| {
                c.listen = "unix:/a".parse().unwrap();
                c.tls.certificate = "/c.pem".into();
                c.tls.key = "/k.pem".into();
            }),
            ("time_factor", |c| c.time_factor = 0),
            ("api.auth", |c| {
                c.listen = "0.0.0.0:80".parse().unwrap();
                c.api.auth = Auth::Off;
            }),
            ("limits.body_bytes", |c| c.limits.body_bytes = 1),
            ("limits.max_artifact_bytes", |c| {
                c.limits.max_artifact_bytes = 1
            }),
            ("limits.max_cpu_time_ms", |c| c.limits.max_cpu_time_ms = 1),
            ("limits.max_processes", |c| c.limits.processes = 1 << 20),
            ("callbacks.attempts", |c| c.callbacks.attempts = 0),
            ("callbacks.allow", |c| {
                c.callbacks.allow = vec!["10.0.0.0/40".into()]
            }),
            ("network.bridge", |c| c.network.bridge = "a b".into()),
            ("network.allow", |c| {
                c.network.allow = vec!["10.0.0.0/40".into()]
            }),
            ("network.range", |c| c.network.range = "10.0.0.0".into()),
        ];
        for (key, spoil) in table {
            let mut config = Config::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
