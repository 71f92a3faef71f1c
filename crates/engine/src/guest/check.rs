//! Refuses events that a well-behaved agent does not send: a guest kernel that was taken over may send any.

use cloude_protocol::agent::{Artifacts, Event, ExecuteRequest, StageName, Stream};

use super::client_error::AgentError;

/// Bytes that a stream may exceed its limit by: the agent rounds its head and its tail to whole chunks.
const OUTPUT_SLACK: u64 = 256 << 10;

/// The state of one execution's events.
pub(super) struct EventCheck {
    /// The VM has its identity, or needs none.
    acknowledged: bool,
    /// Bytes that each stream of each stage may still send.
    left: [[u64; 2]; 2],
    artifacts: Option<ArtifactCheck>,
}

impl EventCheck {
    pub fn new(request: &ExecuteRequest) -> Self {
        let compile = request.compile.as_ref();
        let limits = [
            compile.map_or(0, |stage| stage.output_bytes),
            request.run.output_bytes,
        ];
        EventCheck {
            acknowledged: request.identity.is_none(),
            left: limits.map(|bytes| [bytes.saturating_add(OUTPUT_SLACK); 2]),
            artifacts: request.artifacts.as_ref().map(ArtifactCheck::new),
        }
    }

    pub fn accept(&mut self, event: &Event) -> Result<(), AgentError> {
        let is_identity = matches!(event, Event::Identity);
        if is_identity == self.acknowledged {
            return Err(AgentError::Identity);
        }
        self.acknowledged = true;
        match event {
            Event::Output {
                stage,
                stream,
                data,
            } => {
                let stage = usize::from(*stage == StageName::Run);
                let stream = usize::from(*stream == Stream::Stderr);
                let left = &mut self.left[stage][stream];
                *left = left
                    .checked_sub(data.0.len() as u64)
                    .ok_or(AgentError::TooMuchOutput)?;
            }
            Event::Artifact { path, bytes, mode } => {
                self.artifacts()?.begin(path, *bytes, *mode)?;
            }
            Event::ArtifactData { data } => self.artifacts()?.data(data.0.len() as u64)?,
            _ => {}
        }
        Ok(())
    }

    fn artifacts(&mut self) -> Result<&mut ArtifactCheck, AgentError> {
        let none = AgentError::Artifact("none was asked for");
        self.artifacts.as_mut().ok_or(none)
    }
}

/// The files and bytes that [`Artifacts`] still allows.
struct ArtifactCheck {
    files: u32,
    bytes: u64,
    /// Bytes of the last artifact that may still come.
    due: u64,
    /// The path of the last artifact.
    last: String,
}

impl ArtifactCheck {
    fn new(wanted: &Artifacts) -> Self {
        ArtifactCheck {
            files: wanted.max_files,
            bytes: wanted.max_bytes,
            due: 0,
            last: String::new(),
        }
    }

    fn begin(&mut self, path: &str, bytes: u64, mode: u32) -> Result<(), AgentError> {
        let refused = |why| Err(AgentError::Artifact(why));
        if !is_below(path) {
            return refused("its path leaves the work directory");
        }
        if path <= self.last.as_str() {
            return refused("its path is not after the one before");
        }
        if mode > 0o7777 {
            return refused("its mode has more than permission bits");
        }
        let (Some(files), Some(left)) = (self.files.checked_sub(1), self.bytes.checked_sub(bytes))
        else {
            return refused("it is beyond the limits");
        };
        (self.files, self.bytes, self.due) = (files, left, bytes);
        path.clone_into(&mut self.last);
        Ok(())
    }

    fn data(&mut self, bytes: u64) -> Result<(), AgentError> {
        let more = AgentError::Artifact("it has more bytes than it said");
        self.due = self.due.checked_sub(bytes).ok_or(more)?;
        Ok(())
    }
}

/// True if `path` is relative and names a file below the directory that it is joined to.
fn is_below(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255;
    path.len() <= 4095 && !path.contains('\0') && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use cloude_protocol::agent::Stage;

    use super::*;

    fn check(artifacts: Option<Artifacts>) -> EventCheck {
        EventCheck::new(&ExecuteRequest {
            artifacts,
            ..ExecuteRequest::default()
        })
    }

    fn wanted() -> Option<Artifacts> {
        Some(Artifacts {
            patterns: vec!["**".into()],
            max_bytes: 10,
            max_files: 2,
        })
    }

    fn artifact(path: &str, bytes: u64) -> Event {
        Event::Artifact {
            path: path.into(),
            bytes,
            mode: 0o644,
        }
    }

    fn data(bytes: usize) -> Event {
        Event::ArtifactData {
            data: vec![0; bytes].into(),
        }
    }

    /// The index of the event that is refused.
    fn refused(artifacts: Option<Artifacts>, events: &[Event]) -> Option<usize> {
        let mut check = check(artifacts);
        events.iter().position(|event| check.accept(event).is_err())
    }

    #[test]
    fn each_stage_has_its_own_limit_of_output() {
        let stage = |output_bytes| Stage {
            output_bytes,
            ..Stage::default()
        };
        let mut check = EventCheck::new(&ExecuteRequest {
            compile: Some(stage(2 << 20)),
            run: stage(0),
            ..ExecuteRequest::default()
        });
        let mut output = |stage| {
            check.accept(&Event::Output {
                stage,
                stream: Stream::Stdout,
                data: vec![0; 1 << 20].into(),
            })
        };
        assert!(output(StageName::Compile).is_ok());
        assert!(output(StageName::Run).is_err());
    }

    #[test]
    fn artifacts_within_the_limits_pass() {
        let events = [
            artifact("a/b", 6),
            data(4),
            data(2),
            artifact("c", 4),
            data(3),
        ];
        assert_eq!(refused(wanted(), &events), None);
    }

    #[test]
    fn artifacts_that_nobody_asked_for_are_refused() {
        assert_eq!(refused(None, &[artifact("a", 1)]), Some(0));
        assert_eq!(refused(None, &[data(1)]), Some(0));
    }

    #[test]
    fn paths_out_of_the_directory_are_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/",
            "a\0b",
        ] {
            assert_eq!(refused(wanted(), &[artifact(path, 1)]), Some(0), "{path:?}");
        }
    }

    #[test]
    fn a_path_comes_once() {
        let twice = [artifact("a", 1), artifact("a", 1)];
        assert_eq!(refused(wanted(), &twice), Some(1));
    }

    #[test]
    fn bytes_and_files_beyond_the_limits_are_refused() {
        assert_eq!(refused(wanted(), &[artifact("a", 11)]), Some(0));
        assert_eq!(
            refused(wanted(), &[artifact("a", 6), artifact("b", 5)]),
            Some(1)
        );
        assert_eq!(refused(wanted(), &[data(1)]), Some(0));
        assert_eq!(refused(wanted(), &[artifact("a", 2), data(3)]), Some(1));
        let three = ["a", "b", "c"].map(|path| artifact(path, 1));
        assert_eq!(refused(wanted(), &three), Some(2));
    }
}
