//! A submission as a client sees it: the fields that it asks for.

use std::time::{Duration, UNIX_EPOCH};

use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, StageName};
use cloude_protocol::api::{Execution, Status as State};
use serde_json::{Map, Value, json};

use super::bounds::Bounds;
use super::form::{Form, NotUtf8, in_lines};
use super::status::{self, Status};
use super::submission::Submission;
use super::verdict::Verdict;

/// The output of a finished execution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    compile: Vec<u8>,
}

impl Output {
    /// The output as the submission wants it. `merged`: both streams of a stage in their order.
    pub fn of(
        submission: &Submission,
        execution: &Execution,
        merged: impl Fn(StageName) -> Vec<u8>,
    ) -> Self {
        let (stdout, stderr) = match submission.redirect_stderr_to_stdout {
            true => (merged(StageName::Run), Vec::new()),
            false => (execution.stdout.0.clone(), execution.stderr.0.clone()),
        };
        let compile = execution.compile.as_ref();
        Output {
            stdout,
            stderr,
            compile: match compile {
                Some(report) if report.stdout.0.is_empty() => report.stderr.0.clone(),
                Some(report) if report.stderr.0.is_empty() => report.stdout.0.clone(),
                Some(_) => merged(StageName::Compile),
                None => Vec::new(),
            },
        }
    }
}

/// The state of a submission.
pub enum Progress<'a> {
    Waiting(State),
    Ended(&'a Execution, Output),
}

/// A submission with its state.
pub struct View<'a> {
    pub token: &'a str,
    pub submission: &'a Submission,
    /// When the request arrived, in milliseconds since 1970.
    pub created_ms: u64,
    /// The name of its language, if there still is one with its id.
    pub language: Option<String>,
    pub progress: Progress<'a>,
}

impl View<'_> {
    /// The fields that the client wants. `bounds`: values of limits that it did not set.
    pub fn fields(&self, form: &Form, bounds: &Bounds) -> Result<Value, NotUtf8> {
        let verdict = match &self.progress {
            Progress::Waiting(_) => None,
            Progress::Ended(execution, output) => {
                Some(Verdict::of(self.submission, execution, &output.stdout))
            }
        };
        let shown = Shown {
            view: self,
            status: match (&self.progress, &verdict) {
                (_, Some(verdict)) => verdict.status,
                (Progress::Waiting(State::Running), None) => status::PROCESSING,
                _ => status::IN_QUEUE,
            },
            verdict,
            form,
            bounds,
        };
        let fields = form.fields.iter();
        let fields = fields.map(|field| Ok(((*field).to_owned(), shown.field(field)?)));
        Ok(Value::Object(fields.collect::<Result<Map<_, _>, _>>()?))
    }
}

struct Shown<'a> {
    view: &'a View<'a>,
    status: Status,
    verdict: Option<Verdict<'a>>,
    form: &'a Form,
    bounds: &'a Bounds,
}

impl Shown<'_> {
    fn field(&self, field: &str) -> Result<Value, NotUtf8> {
        let run = self.verdict.as_ref().and_then(|verdict| verdict.run);
        Ok(match field {
            "token" => self.view.token.into(),
            "status" => json!(self.status),
            "status_id" => self.status.id.into(),
            "created_at" => time(self.view.created_ms).into(),
            "finished_at" => match &self.view.progress {
                Progress::Ended(execution, _) => {
                    let total_ms = execution.timings.total_us / 1000;
                    time(self.view.created_ms.saturating_add(total_ms)).into()
                }
                Progress::Waiting(_) => Value::Null,
            },
            "time" => json!(run.map(|run| seconds(run.cpu_time_us))),
            "wall_time" => json!(run.map(|run| seconds(run.wall_time_us))),
            "memory" => json!(run.map(|run| run.peak_memory_bytes / 1024)),
            "exit_code" => json!(self.verdict.as_ref().and_then(Verdict::exit_code)),
            "exit_signal" => json!(self.verdict.as_ref().and_then(Verdict::exit_signal)),
            "message" => {
                let verdict = self.verdict.as_ref();
                let message = verdict.and_then(|verdict| verdict.message.as_deref());
                self.form.option(message.map(str::as_bytes))?
            }
            "stdout" => self.output(|output| &output.stdout)?,
            "stderr" => self.output(|output| &output.stderr)?,
            "compile_output" => self.compile_output()?,
            _ => return self.requested(field),
        })
    }

    /// Output is null if there is none.
    fn output(&self, of: impl Fn(&Output) -> &Vec<u8>) -> Result<Value, NotUtf8> {
        let bytes = match &self.view.progress {
            Progress::Ended(_, output) => of(output).as_slice(),
            Progress::Waiting(_) => &[],
        };
        self.form
            .option(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    fn compile_output(&self) -> Result<Value, NotUtf8> {
        if let Progress::Ended(execution, _) = &self.view.progress
            && let Some(compile) = &execution.compile
            && matches!(compile.result.cause, Cause::WallTime | Cause::CpuTime)
        {
            return self.form.text(b"Compilation time limit exceeded.");
        }
        self.output(|output| &output.compile)
    }

    /// A field of the request.
    fn requested(&self, field: &str) -> Result<Value, NotUtf8> {
        let (of, bounds) = (self.view.submission, self.bounds);
        let data = |data: &Option<Data>| self.form.option(data.as_ref().map(|data| &*data.0));
        let decimal = |given: Option<f64>, default: f64| {
            let number = given.unwrap_or(default);
            Value::from(format!("{number:?}"))
        };
        let whole = |given: Option<u64>, default: u64| Value::from(given.unwrap_or(default));
        Ok(match field {
            "source_code" => self.form.text(&of.source_code.0)?,
            "stdin" => data(&of.stdin)?,
            "expected_output" => data(&of.expected_output)?,
            // Base64 in any case.
            "additional_files" => json!(of.additional_files.as_ref().map(|zip| in_lines(&zip.0))),
            "language_id" => of.language_id.into(),
            "language" => json!({"id": of.language_id, "name": self.view.language}),
            "compiler_options" => json!(of.compiler_options),
            "command_line_arguments" => json!(of.command_line_arguments),
            "number_of_runs" => 1.into(),
            "cpu_time_limit" => decimal(of.cpu_time_limit, bounds.cpu_time.default),
            "cpu_extra_time" => decimal(of.cpu_extra_time, bounds.cpu_extra_time.default),
            "wall_time_limit" => decimal(of.wall_time_limit, bounds.wall_time.default),
            "memory_limit" => whole(of.memory_limit, bounds.memory.default),
            "stack_limit" => whole(of.stack_limit, bounds.stack.default),
            "max_processes_and_or_threads" => {
                whole(of.max_processes_and_or_threads, bounds.processes.default)
            }
            "max_file_size" => whole(of.max_file_size, bounds.file.default),
            "enable_per_process_and_thread_time_limit" => {
                of.enable_per_process_and_thread_time_limit.into()
            }
            "enable_per_process_and_thread_memory_limit" => {
                of.enable_per_process_and_thread_memory_limit.into()
            }
            "redirect_stderr_to_stdout" => of.redirect_stderr_to_stdout.into(),
            "enable_network" => of.enable_network.into(),
            "callback_url" => json!(of.callback_url),
            _ => Value::Null,
        })
    }
}

/// Seconds with up to three decimals, as a text.
fn seconds(us: u64) -> String {
    let text = format!("{:.3}", us as f64 / 1e6);
    let short = text.trim_end_matches('0');
    match short.ends_with('.') {
        true => format!("{short}0"),
        false => short.to_owned(),
    }
}

/// ISO 8601 with milliseconds, in UTC.
fn time(ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dialects::judge0::form::FIELDS;

    fn view<'a>(submission: &'a Submission, progress: Progress<'a>) -> View<'a> {
        View {
            token: "t",
            submission,
            created_ms: 1_518_568_087_133,
            language: Some("Python (3.13.5)".into()),
            progress,
        }
    }

    fn execution() -> Execution {
        let stage = |stdout: &str| {
            json!({
                "cause": "exit", "exit_code": 0, "signal": null, "wall_time_us": 45_400, "cpu_time_us": 2_100,
                "peak_memory_bytes": 376 << 10, "stdout_bytes": stdout.len(), "stdout_dropped": 0,
                "stderr_bytes": 0, "stderr_dropped": 0,
            })
        };
        let execution = json!({
            "id": "t", "language": "c", "status": "done", "cause": "exit", "exit_code": 0, "signal": null,
            "stdout": {"base64": "/w=="}, "stderr": "err",
            "compile": {"result": stage(""), "stdout": "", "stderr": "warning"}, "run": stage("x"),
            "timings": {"queue_us": 0, "start_us": 0, "compile_us": 0, "run_us": 0, "total_us": 1_500_000},
            "start": "cold",
        });
        serde_json::from_value(execution).unwrap()
    }

    fn fields(submission: &Submission, progress: Progress<'_>, is_base64: bool) -> Value {
        let form = Form::of(is_base64, Some("*")).unwrap();
        let bounds = Bounds::of(&crate::config::Config::default());
        view(submission, progress).fields(&form, &bounds).unwrap()
    }

    #[test]
    fn a_finished_submission_has_every_field() {
        let submission = Submission {
            language_id: 50,
            source_code: "int main;".into(),
            expected_output: Some("y".into()),
            cpu_time_limit: Some(2.5),
            ..Submission::default()
        };
        let ended = execution();
        let output = Output::of(&submission, &ended, |_| panic!("one stream is empty"));
        let shown = fields(&submission, Progress::Ended(&ended, output), true);

        for (field, value) in [
            ("token", json!("t")),
            ("time", json!("0.002")),
            ("wall_time", json!("0.045")),
            ("memory", json!(376)),
            ("stdout", json!("/w==\n")),
            ("stderr", json!("ZXJy\n")),
            ("compile_output", json!("d2FybmluZw==\n")),
            ("message", Value::Null),
            ("status", json!({"id": 4, "description": "Wrong Answer"})),
            ("status_id", json!(4)),
            ("exit_code", json!(0)),
            ("exit_signal", Value::Null),
            ("created_at", json!("2018-02-14T00:28:07.133Z")),
            ("finished_at", json!("2018-02-14T00:28:08.633Z")),
            ("source_code", json!("aW50IG1haW47\n")),
            ("stdin", Value::Null),
            ("language", json!({"id": 50, "name": "Python (3.13.5)"})),
            ("cpu_time_limit", json!("2.5")),
            ("wall_time_limit", json!("30.0")),
            ("stack_limit", json!(64_000)),
            ("number_of_runs", json!(1)),
            ("callback_url", Value::Null),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
        assert_eq!(shown.as_object().unwrap().len(), FIELDS.len());
    }

    #[test]
    fn a_waiting_submission_has_no_results() {
        let submission = Submission::default();
        for (state, id) in [(State::Pending, 1), (State::Running, 2)] {
            let shown = fields(&submission, Progress::Waiting(state), false);
            assert_eq!(shown["status_id"], id);
            for field in ["stdout", "time", "memory", "exit_code", "finished_at"] {
                assert_eq!(shown[field], Value::Null, "{field}");
            }
        }
    }

    #[test]
    fn bytes_need_base64() {
        let (submission, ended) = (Submission::default(), execution());
        let output = Output::of(&submission, &ended, |_| Vec::new());
        let view = view(&submission, Progress::Ended(&ended, output));
        let bounds = Bounds::of(&crate::config::Config::default());
        let shown = |fields| view.fields(&Form::of(false, Some(fields)).unwrap(), &bounds);
        assert_eq!(shown("stderr,stdout"), Err(NotUtf8));
        assert_eq!(shown("stderr"), Ok(json!({"stderr": "err"})));
    }

    #[test]
    fn merged_output_is_standard_output() {
        let submission = Submission {
            redirect_stderr_to_stdout: true,
            ..Submission::default()
        };
        let ended = execution();
        let output = Output::of(&submission, &ended, |_| b"both".to_vec());
        let shown = fields(&submission, Progress::Ended(&ended, output), false);
        assert_eq!(
            (&shown["stdout"], &shown["stderr"]),
            (&json!("both"), &Value::Null)
        );
    }

    #[test]
    fn times_are_texts_of_seconds() {
        for (us, text) in [
            (0, "0.0"),
            (2_400, "0.002"),
            (1_500_000, "1.5"),
            (999_999, "1.0"),
        ] {
            assert_eq!(seconds(us), text);
        }
    }
}
