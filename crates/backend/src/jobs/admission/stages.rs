//! The stages of a request with their limits.

use cloude_protocol::agent::{Artifacts, ExecuteRequest, ProcessLimits, Stage};
use cloude_protocol::api::{ExecutionRequest, OnOutputLimit};
use cloude_protocol::language::{Command, Language};

use super::files::Sources;
use super::texts::variables;
use crate::config::Limits;
use crate::jobs::refused::{Refused, ensure};

/// The request to the agent.
pub fn request(
    id: &str,
    request: &ExecutionRequest,
    language: &Language,
    source: Sources,
    limits: &Limits,
) -> Result<ExecuteRequest, Refused> {
    let wanted = &request.limits;
    let output_bytes = wanted.output_bytes.unwrap_or(limits.output_bytes);
    within("output_bytes", output_bytes, 0, limits.max_output_bytes)?;
    let stage = |argv, wall_time_ms, limits| Stage {
        argv,
        wall_time_ms,
        output_bytes,
        kill_at_output_limit: request.on_output_limit == OnOutputLimit::Kill,
        limits,
    };
    let compile = match language.compile.as_ref().zip(source.compile) {
        Some((command, mut argv)) => {
            let times = (wanted.compile.wall_time_ms, limits.compile_time_ms);
            let wall_time = wall_time("compile.wall_time_ms", times, command, limits)?;
            add_options(&mut argv, &request.compile_options, &source.path);
            Some(stage(argv, wall_time, compile_limits(request, limits)?))
        }
        None => {
            ensure(request.compile_options.is_empty(), || Refused::NoCompiler {
                language: language.name.clone(),
            })?;
            None
        }
    };
    let times = (wanted.wall_time_ms, limits.wall_time_ms);
    let mut run = stage(
        source.run,
        wall_time("wall_time_ms", times, &language.run, limits)?,
        run_limits(request, limits)?,
    );
    run.argv.extend(request.args.iter().cloned());
    // The request's variables override the language's.
    let mut env = language.environment();
    env.extend(variables(request).map(|(_, name, value)| (name.to_owned(), value.to_owned())));
    let disk_bytes = limit(
        ("disk_bytes", wanted.disk_bytes),
        limits.disk_bytes,
        limits.max_disk_bytes,
    )?;
    Ok(ExecuteRequest {
        id: id.to_owned(),
        files: source.files,
        compile,
        run,
        stdin: request.stdin.clone(),
        env,
        working_dir: None,
        user: request.user.clone(),
        unconfined: request.unconfined,
        disk_bytes,
        artifacts: artifacts(request, limits)?,
        interactive: request.interactive,
        identity: None,
    })
}

/// Adds `options` to a compile command: before the program if that is the last word, because `go build` takes no option
/// after it, else at the end.
fn add_options(argv: &mut Vec<String>, options: &[String], program: &str) {
    let ends_with_program = argv.last().is_some_and(|word| word == program);
    let at = argv.len() - usize::from(ends_with_program);
    argv.splice(at..at, options.iter().cloned());
}

fn within(field: &'static str, value: u64, least: u64, limit: u64) -> Result<(), Refused> {
    ensure((least..=limit).contains(&value), || Refused::Limit {
        field,
        value,
        least,
        limit,
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
    let most = limits
        .max_wall_time_ms
        .max(command.wall_time_ms.unwrap_or(0));
    within(field, ms, 1, most)?;
    Ok(ms)
}

/// A limit: the request's, which must be 1 to `most`, else the configured default. 0 is none in the configuration.
fn limit(
    (field, wanted): (&'static str, Option<u64>),
    default: u64,
    most: u64,
) -> Result<Option<u64>, Refused> {
    let most = match most {
        0 => u64::MAX,
        most => most,
    };
    match wanted {
        Some(value) => within(field, value, 1, most).map(|()| Some(value)),
        None => Ok((default > 0).then_some(default)),
    }
}

/// Names, values and configuration of the limits of a stage's processes.
struct Wanted {
    cpu_time_ms: (&'static str, Option<u64>),
    processes: (&'static str, Option<u32>),
    open_files: (&'static str, Option<u64>),
    file_bytes: (&'static str, Option<u64>),
    stack_bytes: (&'static str, Option<u64>),
}

impl Wanted {
    fn checked(self, limits: &Limits) -> Result<ProcessLimits, Refused> {
        let (field, processes) = self.processes;
        let processes = limit(
            (field, processes.map(u64::from)),
            limits.processes.into(),
            limits.max_processes.into(),
        )?;
        Ok(ProcessLimits {
            cpu_time_ms: limit(self.cpu_time_ms, limits.cpu_time_ms, limits.max_cpu_time_ms)?,
            processes: processes.and_then(|count| u32::try_from(count).ok()),
            open_files: limit(self.open_files, limits.open_files, limits.max_open_files)?,
            file_bytes: limit(self.file_bytes, limits.file_bytes, limits.max_file_bytes)?,
            stack_bytes: limit(self.stack_bytes, limits.stack_bytes, limits.max_stack_bytes)?,
        })
    }
}

fn run_limits(request: &ExecutionRequest, limits: &Limits) -> Result<ProcessLimits, Refused> {
    let run = &request.limits;
    let wanted = Wanted {
        cpu_time_ms: ("cpu_time_ms", run.cpu_time_ms),
        processes: ("processes", run.processes),
        open_files: ("open_files", run.open_files),
        file_bytes: ("file_bytes", run.file_bytes),
        stack_bytes: ("stack_bytes", run.stack_bytes),
    };
    wanted.checked(limits)
}

fn compile_limits(request: &ExecutionRequest, limits: &Limits) -> Result<ProcessLimits, Refused> {
    let compile = &request.limits.compile;
    let wanted = Wanted {
        cpu_time_ms: ("compile.cpu_time_ms", compile.cpu_time_ms),
        processes: ("compile.processes", compile.processes),
        open_files: ("compile.open_files", compile.open_files),
        file_bytes: ("compile.file_bytes", compile.file_bytes),
        stack_bytes: ("compile.stack_bytes", compile.stack_bytes),
    };
    wanted.checked(limits)
}

fn artifacts(request: &ExecutionRequest, limits: &Limits) -> Result<Option<Artifacts>, Refused> {
    let wanted = request.limits.artifact_bytes;
    let max_bytes = wanted.unwrap_or(limits.artifact_bytes);
    within("artifact_bytes", max_bytes, 0, limits.max_artifact_bytes)?;
    let artifacts = Artifacts {
        patterns: request.artifacts.clone(),
        max_bytes,
        max_files: limits.artifact_files,
    };
    Ok((!request.artifacts.is_empty()).then_some(artifacts))
}
