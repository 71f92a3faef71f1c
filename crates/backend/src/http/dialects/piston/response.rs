//! A result as Piston shows it.

use cloude_protocol::agent::{Cause, StageName, StageResult, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};
use serde::Serialize;

use crate::http::dialects::isolate::End;

/// The response to `POST /execute`.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile: Option<Stage>,
    /// A copy of `compile` if that failed.
    pub run: Stage,
    pub language: String,
    pub version: String,
}

/// A stage of an [`Answer`].
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub struct Stage {
    /// `SIGKILL` for a program that was killed at a limit.
    pub signal: Option<&'static str>,
    pub stdout: String,
    pub stderr: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Both streams in the order of their writes.
    pub output: String,
    /// Peak memory in bytes.
    pub memory: Option<u64>,
    pub message: Option<String>,
    /// `RE`, `SG`, `TO`, `OL`, `EL` or `XX`; none for exit code 0.
    pub status: Option<&'static str>,
    /// In milliseconds.
    pub cpu_time: Option<u64>,
    /// In milliseconds.
    pub wall_time: Option<u64>,
}

/// No stage was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// By the server's fault.
    Infrastructure(String),
    /// The server is shutting down.
    Stopped(String),
}

/// The output of an execution, from its events.
#[derive(Debug, Default)]
pub struct Output {
    compile: Streams,
    run: Streams,
}

#[derive(Debug, Default)]
struct Streams {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    output: Vec<u8>,
}

impl Output {
    /// Adds an event.
    pub fn push(&mut self, event: &ExecutionEvent) {
        let ExecutionEvent::Output {
            stage,
            stream,
            data,
        } = event
        else {
            return;
        };
        let streams = match stage {
            StageName::Compile => &mut self.compile,
            StageName::Run => &mut self.run,
        };
        let bytes = match stream {
            Stream::Stdout => &mut streams.stdout,
            Stream::Stderr => &mut streams.stderr,
        };
        bytes.extend_from_slice(&data.0);
        streams.output.extend_from_slice(&data.0);
    }

    /// The response to a request in this language and version.
    pub fn answer(
        self,
        execution: &Execution,
        language: &str,
        version: String,
    ) -> Result<Answer, Failed> {
        let Output { compile, run } = self;
        let compile = execution
            .compile
            .as_ref()
            .map(|report| compile.stage(&report.result));
        let run = match (&execution.run, &compile) {
            (Some(result), _) => run.stage(result),
            (None, Some(compile)) => compile.clone(),
            (None, None) => run.ended(execution)?,
        };
        Ok(Answer {
            compile,
            run,
            language: language.to_owned(),
            version,
        })
    }
}

impl Streams {
    fn stage(self, result: &StageResult) -> Stage {
        let ms = |us: u64| us.saturating_add(500) / 1000;
        let end = End::of(result);
        Stage {
            signal: end.signal,
            code: end.code,
            message: end.message,
            status: end.status,
            memory: Some(result.peak_memory_bytes),
            cpu_time: Some(ms(result.cpu_time_us)),
            wall_time: Some(ms(result.wall_time_us)),
            ..self.texts()
        }
    }

    /// The run stage of a VM that ended before the program did.
    fn ended(self, execution: &Execution) -> Result<Stage, Failed> {
        let error = execution.error.clone();
        let message = error.unwrap_or_else(|| "the execution has no result".into());
        let status = match execution.cause {
            Cause::Cancelled => return Err(Failed::Stopped(message)),
            Cause::Infrastructure => return Err(Failed::Infrastructure(message)),
            Cause::GuestPanic => "XX",
            _ => "SG",
        };
        Ok(Stage {
            signal: Some("SIGKILL"),
            message: Some(message),
            status: Some(status),
            ..self.texts()
        })
    }

    fn texts(self) -> Stage {
        Stage {
            stdout: text(self.stdout),
            stderr: text(self.stderr),
            output: text(self.output),
            ..Stage::default()
        }
    }
}

/// Invalid UTF-8 becomes U+FFFD.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn result(cause: &str, exit_code: Option<i32>, signal: Option<i32>) -> Value {
        json!({
            "cause": cause, "exit_code": exit_code, "signal": signal, "wall_time_us": 12_600, "cpu_time_us": 3400,
            "peak_memory_bytes": 4096, "stdout_bytes": 0, "stdout_dropped": 0, "stderr_bytes": 0, "stderr_dropped": 0,
        })
    }

    fn execution(cause: &str, stages: Value) -> Execution {
        let mut execution = json!({
            "id": "a", "language": "c", "status": "done", "cause": cause, "exit_code": null, "signal": null,
            "stdout": "", "stderr": "", "start": "cold",
            "timings": {"queue_us": 0, "start_us": 0, "compile_us": 0, "run_us": 0, "total_us": 0},
        });
        let fields = stages.as_object().unwrap().clone();
        execution.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(execution).unwrap()
    }

    fn output(stage: StageName, stream: Stream, data: &[u8]) -> ExecutionEvent {
        ExecutionEvent::Output {
            stage,
            stream,
            data: data.to_vec().into(),
        }
    }

    fn answer(output: Output, execution: &Execution) -> Result<Value, Failed> {
        let answer = output.answer(execution, "c", "14.2.0".into())?;
        Ok(serde_json::to_value(answer).unwrap())
    }

    /// Code, signal, status and message of a run stage.
    fn end(result: Value) -> Value {
        let stage = answer(
            Output::default(),
            &execution("exit", json!({"run": result})),
        );
        let stage = stage.unwrap()["run"].clone();
        json!([
            stage["code"],
            stage["signal"],
            stage["status"],
            stage["message"]
        ])
    }

    #[test]
    fn both_stages_have_all_fields_and_output_in_order() {
        let (compile, run) = (StageName::Compile, StageName::Run);
        let mut seen = Output::default();
        for event in [
            output(compile, Stream::Stderr, b"warning\n"),
            output(run, Stream::Stdout, b"a"),
            output(run, Stream::Stderr, b"b\xff"),
            output(run, Stream::Stdout, b"c"),
        ] {
            seen.push(&event);
        }
        let report = json!({"result": result("exit", Some(0), None), "stdout": "", "stderr": ""});
        let ended = execution(
            "exit",
            json!({"compile": report, "run": result("exit", Some(3), None)}),
        );

        let answer = answer(seen, &ended).unwrap();

        let expected = json!({
            "compile": {
                "stdout": "", "stderr": "warning\n", "output": "warning\n", "code": 0, "signal": null,
                "message": null, "status": null, "cpu_time": 3, "wall_time": 13, "memory": 4096,
            },
            "run": {
                "stdout": "ac", "stderr": "b\u{fffd}", "output": "ab\u{fffd}c", "code": 3, "signal": null,
                "message": "Exited with error status 3", "status": "RE", "cpu_time": 3, "wall_time": 13,
                "memory": 4096,
            },
            "language": "c", "version": "14.2.0",
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_language_without_compiler_has_no_compile_stage() {
        let ended = execution("exit", json!({"run": result("exit", Some(0), None)}));
        let answer = answer(Output::default(), &ended).unwrap();
        assert_eq!(answer.get("compile"), None);
        assert_eq!(answer["run"]["status"], Value::Null);
    }

    #[test]
    fn run_is_a_copy_of_a_compile_stage_that_failed() {
        let mut seen = Output::default();
        seen.push(&output(StageName::Compile, Stream::Stderr, b"error\n"));
        let report = json!({"result": result("exit", Some(1), None), "stdout": "", "stderr": ""});

        let answer = answer(seen, &execution("exit", json!({"compile": report}))).unwrap();

        assert_eq!(answer["compile"]["stderr"], "error\n");
        assert_eq!(answer["compile"]["status"], "RE");
        assert_eq!(answer["run"], answer["compile"]);
    }

    #[test]
    fn every_cause_has_its_status() {
        let exited = |cause| end(result(cause, Some(1), None));
        let killed = |cause| end(result(cause, None, Some(9)));
        assert_eq!(
            end(result("exit", Some(0), None)),
            json!([0, null, null, null])
        );
        assert_eq!(
            exited("exit"),
            json!([1, null, "RE", "Exited with error status 1"])
        );
        let segv = end(result("signal", None, Some(11)));
        assert_eq!(
            segv,
            json!([null, "SIGSEGV", "SG", "Caught fatal signal 11"])
        );
        let wall = json!([null, "SIGKILL", "TO", "Time limit exceeded (wall clock)"]);
        assert_eq!(killed("wall_time"), wall);
        assert_eq!(
            killed("cpu_time"),
            json!([null, "SIGKILL", "TO", "Time limit exceeded"])
        );
        assert_eq!(
            killed("memory"),
            json!([
                null,
                "SIGKILL",
                "SG",
                "Caught fatal signal 9: out of memory"
            ])
        );
        let disk =
            "Exited with error status 1: the limit of the disk or of a file's size is reached";
        assert_eq!(exited("disk"), json!([1, null, "RE", disk]));
        let processes = "Exited with error status 1: the limit of processes is reached";
        assert_eq!(exited("processes"), json!([1, null, "RE", processes]));
        let infrastructure = json!([null, "SIGKILL", "XX", "the program could not be run"]);
        assert_eq!(killed("infrastructure"), infrastructure);
        assert_eq!(
            end(result("signal", None, Some(40)))[1],
            Value::Null,
            "real-time"
        );
    }

    #[test]
    fn the_stream_at_its_limit_decides_between_ol_and_el() {
        let mut flooded = result("output_limit", None, Some(9));
        flooded["stderr_dropped"] = json!(5);
        let stderr = json!([null, "SIGKILL", "EL", "stderr length exceeded"]);
        assert_eq!(end(flooded.clone()), stderr);
        flooded["stdout_dropped"] = json!(5);
        let stdout = json!([null, "SIGKILL", "OL", "stdout length exceeded"]);
        assert_eq!(end(flooded), stdout);
    }

    #[test]
    fn a_vm_that_ends_has_its_output_or_is_an_error() {
        let ended = |cause: &str| {
            let mut seen = Output::default();
            seen.push(&output(StageName::Run, Stream::Stdout, b"so far"));
            answer(seen, &execution(cause, json!({"error": "why"})))
        };
        let panicked = ended("guest_panic").unwrap()["run"].clone();
        assert_eq!(panicked["status"], "XX");
        assert_eq!(
            (&panicked["output"], &panicked["message"]),
            (&json!("so far"), &json!("why"))
        );
        assert_eq!(ended("memory").unwrap()["run"]["status"], "SG");
        let failed = ended("infrastructure").unwrap_err();
        assert_eq!(failed, Failed::Infrastructure("why".into()));
        assert_eq!(
            ended("cancelled").unwrap_err(),
            Failed::Stopped("why".into())
        );
    }
}
