//! Checks of a request, and the request to the agent that results.

mod fields;
mod files;
mod machine;
mod stages;
mod texts;

use std::sync::Arc;

use cloude_engine::images::ReadyImage;
use cloude_engine::languages::Languages;
use cloude_protocol::agent::ExecuteRequest;
use cloude_protocol::api::{ExecutionRequest, StartChoice};
use cloude_protocol::language::Language;

use super::program::Program;
use super::refused::Refused;
use crate::config::{Config, PoolIsolation};
use crate::tenant::Tenant;

pub use fields::{check_size, check_version};

/// A checked request, with the machine and the limits that it gets.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub language: Arc<Language>,
    /// The version that the image must have, if the request names one.
    pub version: Option<String>,
    pub vcpus: u8,
    pub memory_mib: u64,
    /// May connect to the internet.
    pub network: bool,
    /// The client's choice of booting or forking.
    pub start: Option<StartChoice>,
    /// The request to the agent.
    pub execute: ExecuteRequest,
    /// The program that it shares with the other executions of its batch.
    pub program: Option<Arc<Program>>,
    /// Bytes that the request takes in the queue.
    pub bytes: usize,
}

impl Admitted {
    /// Maximum bytes of the result that `clouded` holds in memory: output of all streams, and artifacts.
    pub fn result_bytes(&self) -> u64 {
        let execute = &self.execute;
        let stages = execute.compile.iter().chain([&execute.run]);
        let output = stages.map(|stage| stage.output_bytes.saturating_mul(2));
        let artifacts = execute.artifacts.as_ref().map(|wanted| wanted.max_bytes);
        output.chain(artifacts).fold(0, u64::saturating_add)
    }
}

/// Checks a request against the configuration and the languages.
pub fn admit(
    id: &str,
    request: &ExecutionRequest,
    languages: &Languages,
    config: &Config,
    memory_budget_mib: u64,
) -> Result<Admitted, Refused> {
    let program = files::program(request)?;
    let language = languages
        .find(&request.language)
        .ok_or_else(|| Refused::UnknownLanguage {
            language: texts::shown(&request.language),
            supported: languages.supported(),
        })?;
    texts::check(request)?;
    fields::check(request)?;
    let bytes = texts::size(request);
    if bytes > config.limits.code_bytes {
        return Err(Refused::TooLarge {
            bytes,
            limit: config.limits.code_bytes,
        });
    }
    let source = files::source(request, program, language)?;
    let machine = machine::of(request, language, config, memory_budget_mib)?;
    let execute = stages::request(id, request, language, source, &config.limits)?;
    Ok(Admitted {
        language: Arc::clone(language),
        version: fields::wanted_version(request).map(str::to_owned),
        vcpus: machine.vcpus,
        memory_mib: machine.memory_mib,
        network: request.network,
        start: request.start,
        execute,
        program: None,
        bytes,
    })
}

/// [`check_version`] of an admitted request.
pub fn check_image(admitted: &Admitted, image: &ReadyImage) -> Result<(), Refused> {
    let wanted = admitted.version.as_deref();
    check_version(wanted, &admitted.language, image.version.as_deref())
}

/// The owner of the templates that an execution of this tenant may fork.
pub fn template_owner(config: &Config, tenant: &Tenant) -> Option<String> {
    match config.pool.isolation {
        PoolIsolation::Shared => None,
        PoolIsolation::PerKey => Some(tenant.id().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_share_templates_unless_configured_otherwise() {
        let mut config = Config::default();
        let owner = |config: &Config, key| template_owner(config, &Tenant::of_key(key));
        assert_eq!(owner(&config, "a"), owner(&config, "b"));

        config.pool.isolation = PoolIsolation::PerKey;

        assert_ne!(owner(&config, "a"), owner(&config, "b"));
    }
}
