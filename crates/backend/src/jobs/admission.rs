//! Checks of a request, and the request to the agent that results.

use std::collections::HashSet;
use std::sync::Arc;

use cloude_protocol::agent::{
    ExecuteRequest, File, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS_BYTES, Stage,
};
use cloude_protocol::api::{ExecutionRequest, StartChoice};
use cloude_protocol::language::{Command, Language};

use cloude_engine::MEMORY_STEP_MIB;
use cloude_engine::languages::{Languages, Source, check_path};

use super::refused::Refused;
use crate::config::{Config, Limits, PoolIsolation};
use crate::tenant::Tenant;

/// The most files of one request, the code included.
const MAX_FILES: usize = 1000;

/// A checked request, with the machine and the limits that it gets.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub language: Arc<Language>,
    pub vcpus: u8,
    pub memory_mib: u64,
    /// May connect to the internet.
    pub network: bool,
    /// The client's choice of booting or forking.
    pub start: Option<StartChoice>,
    /// The request to the agent.
    pub execute: ExecuteRequest,
    /// Bytes that the request takes in the queue.
    pub bytes: usize,
}

fn ensure(ok: bool, refused: impl FnOnce() -> Refused) -> Result<(), Refused> {
    if ok { Ok(()) } else { Err(refused()) }
}

/// Checks a request against the configuration and the languages.
pub fn admit(
    id: &str,
    request: &ExecutionRequest,
    languages: &Languages,
    config: &Config,
    memory_budget_mib: u64,
) -> Result<Admitted, Refused> {
    ensure(!request.code.trim().is_empty(), || Refused::EmptyCode)?;
    let language = languages
        .find(&request.language)
        .ok_or_else(|| Refused::UnknownLanguage {
            language: shown(&request.language),
            supported: languages.supported(),
        })?;
    check_texts(request)?;
    check_user(request.user.as_deref())?;
    let bytes = size(request);
    if bytes > config.limits.code_bytes {
        return Err(Refused::TooLarge {
            bytes,
            limit: config.limits.code_bytes,
        });
    }
    let source = Source::of(language, &request.code, request.file_name.as_deref())
        .map_err(|reason| Refused::LanguageFile { reason })?;
    check_files(request, &source.file)?;
    ensure(!request.network || config.network.enabled, || {
        Refused::NoNetwork
    })?;
    let (vcpus, memory_mib) = machine(request, language, config, memory_budget_mib)?;
    let execute = execute_request(id, request, language, source, &config.limits)?;
    let language = Arc::clone(language);
    Ok(Admitted {
        language,
        vcpus,
        memory_mib,
        network: request.network,
        start: request.start,
        execute,
        bytes,
    })
}

fn size(request: &ExecutionRequest) -> usize {
    let files = request
        .files
        .iter()
        .map(|file| file.path.len() + file.content.0.len());
    let args = request.args.iter().map(String::len);
    let env = variables(request).map(|(_, name, value)| name.len() + value.len());
    request.code.len() + request.stdin.0.len() + files.chain(args).chain(env).sum::<usize>()
}

/// Field, name and value of each variable.
fn variables(request: &ExecutionRequest) -> impl Iterator<Item = (&'static str, &str, &str)> {
    let env = request.env.iter();
    let env = env.map(|(name, value)| ("env", name.as_str(), value.as_str()));
    let secrets = request.secrets.iter();
    env.chain(secrets.map(|(name, value)| ("secrets", name.as_str(), value.0.as_str())))
}

fn check_texts(request: &ExecutionRequest) -> Result<(), Refused> {
    let mut total = 0;
    for (index, arg) in request.args.iter().enumerate() {
        ensure(!arg.contains('\0'), || Refused::NulInArgument { index })?;
        total += check_length(arg.len(), || format!("args[{index}]"))?;
    }
    for (field, name, value) in variables(request) {
        let valid = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        ensure(valid, || Refused::Variable {
            field,
            name: shown(name),
        })?;
        let length = name.len() + 1 + value.len();
        total += check_length(length, || format!("{field}.{}", shown(name)))?;
    }
    if let Some(name) = request
        .secrets
        .keys()
        .find(|name| request.env.contains_key(*name))
    {
        return Err(Refused::SecretTwice { name: shown(name) });
    }
    ensure(total <= MAX_ARGUMENTS_BYTES, || Refused::LongTexts {
        bytes: total,
        limit: MAX_ARGUMENTS_BYTES,
    })
}

/// A name or number of /etc/passwd, and one of /etc/group. Whether the image has them shows in the guest.
fn check_user(user: Option<&str>) -> Result<(), Refused> {
    let Some(user) = user else { return Ok(()) };
    let named = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte);
        (1..=32).contains(&part.len()) && part.bytes().all(known)
    };
    let parts: Vec<&str> = user.split(':').collect();
    ensure(parts.len() <= 2 && parts.into_iter().all(named), || {
        Refused::User { user: shown(user) }
    })
}

/// The start of a name for a message: the name itself may be as long as a request.
fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

/// Checks one argument or variable and returns its share of [`MAX_ARGUMENTS_BYTES`]: the text, its NUL byte and its
/// pointer.
fn check_length(length: usize, field: impl Fn() -> String) -> Result<usize, Refused> {
    const POINTER_BYTES: usize = 8;
    ensure(length < MAX_ARGUMENT_BYTES, || Refused::LongText {
        field: field(),
        bytes: length,
        limit: MAX_ARGUMENT_BYTES - 1,
    })?;
    Ok(length + 1 + POINTER_BYTES)
}

fn check_files(request: &ExecutionRequest, program: &str) -> Result<(), Refused> {
    ensure(request.files.len() < MAX_FILES, || Refused::TooManyFiles {
        count: request.files.len(),
        limit: MAX_FILES - 1,
    })?;
    check_path(program).map_err(|reason| Refused::ProgramPath {
        path: shown(program),
        reason,
    })?;
    let mut seen = HashSet::from([program]);
    for file in &request.files {
        let path = || shown(&file.path);
        check_path(&file.path).map_err(|reason| Refused::FilePath {
            path: path(),
            reason,
        })?;
        ensure(file.path != program, || Refused::ProgramTwice {
            path: path(),
        })?;
        ensure(seen.insert(&file.path), || Refused::FileTwice {
            path: path(),
        })?;
        if let Some(mode) = file.mode.filter(|mode| *mode > 0o7777) {
            return Err(Refused::FileMode { path: path(), mode });
        }
    }
    check_folders(&seen, program)
}

/// No path may be both a file and the folder of another file.
fn check_folders(files: &HashSet<&str>, program: &str) -> Result<(), Refused> {
    for path in files {
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = parents.find(|parent| files.contains(parent)) {
            let (is_program, parent, path) = (parent == program, shown(parent), shown(path));
            return Err(match is_program {
                true => Refused::ProgramIsFolder { parent, path },
                false => Refused::FileIsFolder { parent, path },
            });
        }
    }
    Ok(())
}

fn machine(
    request: &ExecutionRequest,
    language: &Language,
    config: &Config,
    budget_mib: u64,
) -> Result<(u8, u64), Refused> {
    let vcpus = request
        .limits
        .vcpus
        .or(language.machine.vcpus)
        .unwrap_or(config.vm.vcpus);
    ensure((1..=8).contains(&vcpus), || Refused::Vcpus { vcpus })?;
    let default = language.machine.memory_mib.unwrap_or(config.vm.memory_mib);
    let memory_mib = request.limits.memory_mib.unwrap_or(default);
    let limit = config.vm.max_memory_mib.max(default).min(budget_mib);
    ensure((64..=limit).contains(&memory_mib), || {
        match request.limits.memory_mib {
            Some(_) => Refused::Memory { memory_mib, limit },
            None => Refused::DefaultMemory { memory_mib, limit },
        }
    })?;
    let rounded = memory_mib.next_multiple_of(MEMORY_STEP_MIB).min(limit);
    Ok((vcpus, rounded))
}

fn execute_request(
    id: &str,
    request: &ExecutionRequest,
    language: &Language,
    source: Source,
    limits: &Limits,
) -> Result<ExecuteRequest, Refused> {
    let wanted = &request.limits;
    let output_bytes = wanted.output_bytes.unwrap_or(limits.output_bytes);
    ensure(output_bytes <= limits.max_output_bytes, || {
        Refused::OutputBytes {
            bytes: output_bytes,
            limit: limits.max_output_bytes,
        }
    })?;
    let stage = |argv, wall_time_ms| Stage {
        argv,
        wall_time_ms,
        output_bytes,
    };
    let compile = match language.compile.as_ref().zip(source.compile) {
        Some((command, argv)) => {
            let times = (wanted.compile_time_ms, limits.compile_time_ms);
            Some(stage(
                argv,
                wall_time("compile_time_ms", times, command, limits)?,
            ))
        }
        None => None,
    };
    let times = (wanted.wall_time_ms, limits.wall_time_ms);
    let mut run = stage(
        source.run,
        wall_time("wall_time_ms", times, &language.run, limits)?,
    );
    run.argv.extend(request.args.iter().cloned());
    // The request's variables override the language's.
    let mut env = language.environment();
    env.extend(variables(request).map(|(_, name, value)| (name.to_owned(), value.to_owned())));
    let code = File {
        path: source.file,
        content: request.code.clone().into(),
        mode: None,
    };
    Ok(ExecuteRequest {
        id: id.to_owned(),
        files: std::iter::once(code)
            .chain(request.files.iter().cloned())
            .collect(),
        compile,
        run,
        stdin: request.stdin.clone(),
        env,
        working_dir: None,
        user: request.user.clone(),
        unconfined: request.unconfined,
        identity: None,
    })
}

/// The wall-clock limit of a stage in milliseconds: the request's, else the language's, else the configured default.
fn wall_time(
    field: &'static str,
    (wanted, default): (Option<u64>, u64),
    command: &Command,
    limits: &Limits,
) -> Result<u64, Refused> {
    let ms = wanted.or(command.wall_time_ms).unwrap_or(default);
    // The limit of a language may exceed `limits.max_wall_time_ms`.
    let limit = limits
        .max_wall_time_ms
        .max(command.wall_time_ms.unwrap_or(0));
    ensure((1..=limit).contains(&ms), || Refused::WallTime {
        field,
        ms,
        limit,
    })?;
    Ok(ms)
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
