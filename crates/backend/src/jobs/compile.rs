//! The compile stage of a batch, in a VM of its own.

use cloude_engine::{Failure, Launched, MachineSpec, guest};
use cloude_protocol::agent::{
    Artifacts, Event, ExecuteRequest, ExecuteResult, File, ProcessLimits, Stage, StageName,
};
use tokio_util::sync::CancellationToken;

use super::artifacts::Collector;
use super::attempt::identity_of;
use super::program::Compiled;
use super::service::Parts;

/// Bytes of a compiled program and of the files beside it. They are sent to each VM in one request, which takes some three
/// times as much of its memory.
const MAX_BYTES: u64 = 16 << 20;
/// Files of a compiled program, with its sources.
const MAX_FILES: u32 = 1000;

/// Runs the compile stage of `execute` in a VM of its own. `None`: the program is too large to be sent to other VMs, or has
/// files that cannot be.
pub async fn compile(
    parts: &Parts,
    spec: MachineSpec,
    execute: &ExecuteRequest,
    cancel: &CancellationToken,
) -> Result<Option<Compiled>, Failure> {
    let id = spec.id.clone();
    let launched = parts.launcher.launch(spec, cancel.clone()).await?;
    let Launched {
        stream,
        token,
        template,
        network,
        mut machine,
        ..
    } = launched;
    let mut request = compile_only(execute);
    if template.is_some() {
        match identity_of(&id, network) {
            Ok(identity) => request.identity = Some(identity),
            Err(failure) => {
                machine.stop().await;
                return Err(failure);
            }
        }
    }
    let mut collector = Collector::new(request.artifacts.as_ref());
    let (mut events, mut result) = (Vec::new(), None);
    let exchanged = guest::exchange(
        (stream, &token),
        machine.as_mut(),
        &request,
        parts.config.agent.grace(),
        cancel,
        |event| match event {
            Event::Artifact { path, bytes, mode } => collector.begin(path, bytes, mode),
            Event::ArtifactData { data } => collector.append(&data.0),
            Event::Finished(finished) => result = Some(finished),
            Event::Identity => {}
            event => events.push(event),
        },
    )
    .await;
    machine.stop().await;
    exchanged.map_err(|error| error.failure)?;
    let result = result.unwrap_or_default();
    Ok(compiled_of(execute, result, events, collector))
}

/// The request with its compile stage alone. A run stage is required, and artifacts are those of its end.
fn compile_only(execute: &ExecuteRequest) -> ExecuteRequest {
    ExecuteRequest {
        run: Stage {
            argv: vec!["true".into()],
            wall_time_ms: execute.run.wall_time_ms,
            output_bytes: 0,
            kill_at_output_limit: false,
            limits: ProcessLimits::default(),
        },
        stdin: Default::default(),
        artifacts: Some(Artifacts {
            patterns: vec!["**".into()],
            max_bytes: MAX_BYTES,
            max_files: MAX_FILES,
        }),
        interactive: None,
        identity: None,
        ..execute.clone()
    }
}

fn compiled_of(
    execute: &ExecuteRequest,
    finished: ExecuteResult,
    mut events: Vec<Event>,
    collector: Collector,
) -> Option<Compiled> {
    events.retain(|event| match event {
        Event::Started { stage } | Event::Output { stage, .. } | Event::Dropped { stage, .. } => {
            *stage == StageName::Compile
        }
        _ => false,
    });
    let artifacts = collector.finish();
    let mut compiled = Compiled {
        env: execute.env.clone(),
        events,
        result: finished.compile?,
        files: Vec::new(),
    };
    if !compiled.has_succeeded() {
        return Some(compiled);
    }
    let is_whole = finished.artifacts_dropped == 0 && artifacts.dropped == 0;
    let has_run = finished.run.is_some_and(|run| run.exit_code == Some(0));
    compiled.files = (artifacts.list.into_iter().zip(artifacts.contents))
        .map(|(artifact, content)| File {
            path: artifact.path,
            content: Vec::from(content).into(),
            mode: Some(artifact.mode),
        })
        .collect();
    (is_whole && has_run && !compiled.files.is_empty()).then_some(compiled)
}
