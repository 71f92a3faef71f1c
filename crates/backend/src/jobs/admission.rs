//! What a request must satisfy, and what it then gets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cloude_protocol::agent::{
    ExecuteRequest, File, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS_BYTES, Stage,
};
use cloude_protocol::api::{ExecutionRequest, StartChoice};
use cloude_protocol::language::{Command, Language};

use cloude_engine::MEMORY_STEP_MIB;
use cloude_engine::languages::{Languages, Source, check_path};

use crate::config::{Config, Limits};

/// The most files of one request, the code included.
const MAX_FILES: usize = 1000;

/// A request that can be carried out.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Its language.
    pub language: Arc<Language>,
    /// Its VM.
    pub vcpus: u8,
    /// MiB.
    pub memory_mib: u64,
    /// Does it have a network?
    pub network: bool,
    /// How its VM has to come to be, if the client says.
    pub start: Option<StartChoice>,
    /// For the agent.
    pub execute: ExecuteRequest,
    /// What it takes of memory while it waits, in bytes.
    pub bytes: usize,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The program is over the limit.
    #[error("the program has {bytes} bytes with its files and input, {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Result<(), Refused> {
    if ok {
        Ok(())
    } else {
        Err(Refused::Invalid(message()))
    }
}

/// Checks a request against the configuration, and turns it into what the agent gets.
pub fn admit(
    id: &str,
    request: &ExecutionRequest,
    languages: &Languages,
    config: &Config,
    memory_budget_mib: u64,
) -> Result<Admitted, Refused> {
    ensure(!request.code.trim().is_empty(), || "`code` is empty".into())?;
    let language = languages.find(&request.language).ok_or_else(|| {
        let supported = languages.supported();
        Refused::Invalid(format!(
            "unsupported language `{}`; supported: {supported}",
            request.language
        ))
    })?;
    check_texts(request)?;
    let bytes = size(request);
    if bytes > config.limits.code_bytes {
        return Err(Refused::TooLarge {
            bytes,
            limit: config.limits.code_bytes,
        });
    }
    let source = Source::of(language, &request.code, request.file_name.as_deref())
        .map_err(Refused::Invalid)?;
    check_files(request, &source.file)?;
    ensure(!request.network || config.network.enabled, || {
        "`network` is switched off on this server".into()
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
    let env = request
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len());
    request.code.len() + request.stdin.0.len() + files.chain(args).chain(env).sum::<usize>()
}

fn check_texts(request: &ExecutionRequest) -> Result<(), Refused> {
    let mut total = 0;
    for (index, arg) in request.args.iter().enumerate() {
        ensure(!arg.contains('\0'), || {
            format!("`args[{index}]` holds a NUL byte, which ends an argument")
        })?;
        total += check_length(arg.len(), || format!("`args[{index}]`, an argument,"))?;
    }
    for (name, value) in &request.env {
        let valid = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        ensure(valid, || {
            format!(
                "`env` holds `{}`, which cannot be a variable: a name is not empty and holds no `=`, and no NUL byte \
                 is in name or value",
                shown(name)
            )
        })?;
        let length = name.len() + 1 + value.len();
        total += check_length(length, || format!("`env.{}`, a variable,", shown(name)))?;
    }
    ensure(total <= MAX_ARGUMENTS_BYTES, || {
        format!(
            "`args` and `env` take {total} bytes together, at most {MAX_ARGUMENTS_BYTES} are allowed (each argument \
             and variable takes 9 beside its own): put long texts into `stdin` or `files`"
        )
    })
}

/// A variable's name for a message, which may be as long as a request.
fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

/// Checks one argument or variable, and gives its share of [`MAX_ARGUMENTS_BYTES`].
fn check_length(length: usize, what: impl Fn() -> String) -> Result<usize, Refused> {
    const POINTER_BYTES: usize = 8;
    ensure(length < MAX_ARGUMENT_BYTES, || {
        format!(
            "{} has {length} bytes, at most {} are allowed: put long texts into `stdin` or `files`",
            what(),
            MAX_ARGUMENT_BYTES - 1
        )
    })?;
    Ok(length + 1 + POINTER_BYTES)
}

fn check_files(request: &ExecutionRequest, program: &str) -> Result<(), Refused> {
    ensure(request.files.len() < MAX_FILES, || {
        format!(
            "`files` has {}, at most {} are allowed",
            request.files.len(),
            MAX_FILES - 1
        )
    })?;
    check_path(program)
        .map_err(|reason| Refused::Invalid(format!("the program's file `{program}`: {reason}")))?;
    let mut seen = HashSet::from([program]);
    for file in &request.files {
        let name = file.path.escape_debug();
        check_path(&file.path)
            .map_err(|reason| Refused::Invalid(format!("`files` holds `{name}`: {reason}")))?;
        ensure(seen.insert(&file.path), || {
            format!("`files` holds `{name}` twice, or it is the program's own name")
        })?;
        ensure(file.mode.is_none_or(|mode| mode <= 0o7777), || {
            format!("`files` holds `{name}` with a mode over 0o7777")
        })?;
    }
    check_folders(&seen, program)
}

/// No file may be where another one needs a folder.
fn check_folders(files: &HashSet<&str>, program: &str) -> Result<(), Refused> {
    for path in files {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        for parent in parents {
            ensure(!files.contains(parent), || {
                let whose = match parent == program {
                    true => "the program's own file, and",
                    false => "a file, and",
                };
                format!(
                    "`{}` is {whose} `{}` in `files` needs a folder of that name; rename one of them",
                    parent.escape_debug(),
                    path.escape_debug()
                )
            })?;
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
    ensure((1..=8).contains(&vcpus), || {
        format!("`limits.vcpus` is {vcpus}, it must be 1 to 8")
    })?;
    let default = language.machine.memory_mib.unwrap_or(config.vm.memory_mib);
    let memory = request.limits.memory_mib.unwrap_or(default);
    let most = config.vm.max_memory_mib.max(default).min(budget_mib);
    ensure((64..=most).contains(&memory), || {
        let what = if request.limits.memory_mib.is_some() {
            "`limits.memory_mib`"
        } else {
            "the VM's memory"
        };
        format!("{what} is {memory} MiB, this server has 64 to {most}")
    })?;
    Ok((vcpus, memory.next_multiple_of(MEMORY_STEP_MIB).min(most)))
}

fn execute_request(
    id: &str,
    request: &ExecutionRequest,
    language: &Language,
    source: Source,
    limits: &Limits,
) -> Result<ExecuteRequest, Refused> {
    let wanted = &request.limits;
    let output = wanted.output_bytes.unwrap_or(limits.output_bytes);
    ensure(output <= limits.max_output_bytes, || {
        format!(
            "`limits.output_bytes` is {output}, at most {} are allowed",
            limits.max_output_bytes
        )
    })?;
    let stage = |command: &Command, argv, name, wanted: Option<u64>, default: u64| {
        let time = wanted.or(command.wall_time_ms).unwrap_or(default);
        // A language's own limit may be above what requests may ask for.
        let most = limits
            .max_wall_time_ms
            .max(command.wall_time_ms.unwrap_or(0));
        ensure((1..=most).contains(&time), || {
            format!("`limits.{name}` is {time}, it must be 1 to {most}")
        })?;
        Ok::<_, Refused>(Stage {
            argv,
            wall_time_ms: time,
            output_bytes: output,
        })
    };
    let compile = language.compile.as_ref().zip(source.compile);
    let compile = compile
        .map(|(command, argv)| {
            stage(
                command,
                argv,
                "compile_time_ms",
                wanted.compile_time_ms,
                limits.compile_time_ms,
            )
        })
        .transpose()?;
    let mut run = stage(
        &language.run,
        source.run,
        "wall_time_ms",
        wanted.wall_time_ms,
        limits.wall_time_ms,
    )?;
    run.argv.extend(request.args.iter().cloned());
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
        env: environment(request, language),
        working_dir: None,
        identity: None,
    })
}

/// The agent has one environment for both stages: the compile command's, over it the run command's,
/// over that the request's.
fn environment(request: &ExecutionRequest, language: &Language) -> BTreeMap<String, String> {
    let compile = language.compile.iter().flat_map(|command| &command.env);
    compile
        .chain(&language.run.env)
        .chain(&request.env)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
