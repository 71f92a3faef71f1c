//! The verdict on a finished execution.

use cloude_protocol::agent::{Cause, StageResult};
use cloude_protocol::api::Execution;

use super::status::{self, Status};
use super::submission::Submission;
use crate::http::dialects::isolate::End;

/// Parts of the agent's messages about a program that `execve` refused.
const NOT_EXECUTED: [&str; 4] = [
    ": its interpreter (of the #! line",
    ": not found",
    ": the program's user may not execute it",
    ": neither an ELF program",
];

/// The status of a submission, with what explains it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict<'a> {
    pub status: Status,
    pub message: Option<String>,
    /// The run stage; none if there was none.
    pub run: Option<&'a StageResult>,
}

impl<'a> Verdict<'a> {
    /// The verdict. `stdout`: the program's output as the client sees it.
    pub fn of(submission: &Submission, execution: &'a Execution, stdout: &[u8]) -> Self {
        let without_run = |status, message| Verdict {
            status,
            message,
            run: None,
        };
        if let Some(run) = &execution.run {
            return submission.verdict(run, stdout);
        }
        if let Some(compile) = &execution.compile
            && !is_ok(&compile.result)
        {
            return match compile.result.cause {
                Cause::Infrastructure => {
                    without_run(status::INTERNAL, compile.result.message.clone())
                }
                _ => without_run(status::COMPILATION_ERROR, None),
            };
        }
        match execution.cause {
            Cause::Memory => without_run(status::OTHER, execution.error.clone()),
            _ => without_run(status::INTERNAL, execution.error.clone()),
        }
    }

    /// The exit code; 0 of a program that did not exit by itself, as in Judge0.
    pub fn exit_code(&self) -> Option<i32> {
        self.run.map(|run| run.exit_code.unwrap_or(0))
    }

    /// The signal that ended the program, unless that was one of a limit.
    pub fn exit_signal(&self) -> Option<i32> {
        let is_limit = matches!(self.status, status::TIME_LIMIT | status::INTERNAL);
        self.run.and_then(|run| run.signal).filter(|_| !is_limit)
    }
}

impl Submission {
    fn verdict<'a>(&self, run: &'a StageResult, stdout: &[u8]) -> Verdict<'a> {
        let end = End::of(run);
        let (status, message) = match end.status {
            Some("TO") => (status::TIME_LIMIT, end.message),
            // Output is a file in Judge0, and its size is limited.
            Some("OL" | "EL") => (status::FILE_SIZE, end.message),
            Some("RE") => (status::EXIT_CODE, end.message),
            Some("SG") => (
                status::of_signal(run.signal.unwrap_or(libc::SIGKILL)),
                end.message,
            ),
            Some(_) => (not_run(run), end.message),
            None => self.of_exited(run, stdout),
        };
        Verdict {
            status,
            message,
            run: Some(run),
        }
    }

    /// The verdict on a program that exited with 0.
    fn of_exited(&self, run: &StageResult, stdout: &[u8]) -> (Status, Option<String>) {
        let is_above = |us: u64, limit: Option<f64>| {
            limit.is_some_and(|seconds| seconds > 0.0 && us as f64 > seconds * 1e6)
        };
        if is_above(run.cpu_time_us, self.cpu_time_limit) {
            return (status::TIME_LIMIT, Some("Time limit exceeded".into()));
        }
        // The VM may have more memory than the limit, because it also holds the image.
        let limit = self.memory_limit.map(|kib| kib.saturating_mul(1024));
        if limit.is_some_and(|limit| run.peak_memory_bytes > limit) {
            return (status::OTHER, Some("Memory limit exceeded".into()));
        }
        let is_expected = |expected| stripped(expected) == stripped(stdout);
        let expected = self.expected_output.as_ref();
        match expected.is_none_or(|expected| is_expected(&expected.0)) {
            true => (status::ACCEPTED, None),
            false => (status::WRONG_ANSWER, None),
        }
    }
}

fn is_ok(result: &StageResult) -> bool {
    result.cause == Cause::Exit && result.exit_code == Some(0)
}

/// The status of a program that was not executed, or whose VM failed.
fn not_run(run: &StageResult) -> Status {
    let message = run.message.as_deref().unwrap_or_default();
    match NOT_EXECUTED.iter().any(|part| message.contains(part)) {
        true => status::EXEC_FORMAT,
        false => status::INTERNAL,
    }
}

/// The lines without white space and NUL at their ends, and without empty lines at the end.
fn stripped(text: &[u8]) -> Vec<&[u8]> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b);
    let mut lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let end = line.iter().rposition(|byte| !is_space(byte));
            &line[..end.map_or(0, |last| last + 1)]
        })
        .collect();
    let end = lines.iter().rposition(|line| !line.is_empty());
    lines.truncate(end.map_or(0, |last| last + 1));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn result(cause: &str, exit_code: Option<i32>, signal: Option<i32>) -> Value {
        json!({
            "cause": cause, "exit_code": exit_code, "signal": signal, "wall_time_us": 1, "cpu_time_us": 2_000_000,
            "peak_memory_bytes": 64 << 20, "stdout_bytes": 0, "stdout_dropped": 0, "stderr_bytes": 0,
            "stderr_dropped": 0,
        })
    }

    fn execution(cause: &str, parts: Value) -> Execution {
        let mut execution = json!({
            "id": "1", "language": "c", "status": "done", "cause": cause, "exit_code": null, "signal": null,
            "stdout": "", "stderr": "", "start": "cold",
            "timings": {"queue_us": 0, "start_us": 0, "compile_us": 0, "run_us": 0, "total_us": 0},
        });
        execution
            .as_object_mut()
            .unwrap()
            .extend(parts.as_object().unwrap().clone());
        serde_json::from_value(execution).unwrap()
    }

    fn ran(submission: &Submission, run: Value, stdout: &str) -> (u8, Option<String>) {
        let ended = execution("exit", json!({"run": run}));
        let verdict = Verdict::of(submission, &ended, stdout.as_bytes());
        (verdict.status.id, verdict.message)
    }

    #[test]
    fn every_end_of_a_program_has_its_status() {
        let any = Submission::default();
        let id = |run| ran(&any, run, "").0;
        assert_eq!(id(result("exit", Some(0), None)), 3);
        assert_eq!(id(result("exit", Some(3), None)), 11);
        for (signal, status) in [(11, 7), (25, 8), (8, 9), (6, 10), (9, 12), (15, 12)] {
            assert_eq!(id(result("signal", None, Some(signal))), status, "{signal}");
        }
        assert_eq!(id(result("wall_time", None, Some(9))), 5);
        assert_eq!(id(result("cpu_time", None, Some(9))), 5);
        assert_eq!(id(result("memory", None, Some(9))), 12);
        assert_eq!(id(result("output_limit", None, Some(9))), 8);
        assert_eq!(id(result("disk", None, Some(25))), 8);
        assert_eq!(id(result("processes", Some(1), None)), 11);
        let infrastructure = |message: &str| {
            let mut run = result("infrastructure", None, None);
            run["message"] = json!(message);
            id(run)
        };
        assert_eq!(infrastructure("cannot clone"), 13);
        let format = "./main: neither an ELF program for x86-64 nor a script with a #! line";
        assert_eq!(infrastructure(format), 14);
    }

    #[test]
    fn the_message_explains_the_status() {
        let any = Submission::default();
        let message = |run| ran(&any, run, "").1;
        assert_eq!(message(result("exit", Some(0), None)), None);
        let code = message(result("exit", Some(3), None)).unwrap();
        assert_eq!(code, "Exited with error status 3");
        let signal = message(result("signal", None, Some(11))).unwrap();
        assert_eq!(signal, "Caught fatal signal 11");
        let time = message(result("wall_time", None, Some(9))).unwrap();
        assert_eq!(time, "Time limit exceeded (wall clock)");
    }

    #[test]
    fn output_is_compared_without_white_space_at_ends_of_lines() {
        for (expected, stdout, status) in [
            ("a\nb", "a \t\nb\r\n\n", 3),
            ("a\n\n", "a", 3),
            ("", "\n", 3),
            (" a", "a", 4),
            ("a\nb", "a\n\nb", 4),
            ("a", "", 4),
            ("a", "b", 4),
        ] {
            let submission = Submission {
                expected_output: Some(expected.into()),
                ..Submission::default()
            };
            let exited = result("exit", Some(0), None);
            assert_eq!(
                ran(&submission, exited, stdout).0,
                status,
                "{expected:?} {stdout:?}"
            );
        }
    }

    #[test]
    fn a_wrong_answer_needs_an_exit_with_zero() {
        let submission = Submission {
            expected_output: Some("a".into()),
            ..Submission::default()
        };
        assert_eq!(ran(&submission, result("exit", Some(1), None), "b").0, 11);
    }

    #[test]
    fn measured_time_and_memory_above_the_limit_decide() {
        let limited = |cpu_time_limit, memory_limit| {
            let submission = Submission {
                cpu_time_limit,
                memory_limit,
                ..Submission::default()
            };
            ran(&submission, result("exit", Some(0), None), "").0
        };
        assert_eq!(limited(Some(1.9), None), 5);
        assert_eq!(limited(Some(2.0), None), 3);
        assert_eq!(limited(Some(0.0), None), 3, "no limit");
        assert_eq!(limited(None, Some(65_535)), 12);
        assert_eq!(limited(None, Some(65_536)), 3);
    }

    #[test]
    fn a_program_that_did_not_run_has_no_exit_code() {
        let any = Submission::default();
        let report = |result| json!({"compile": {"result": result, "stdout": "", "stderr": ""}});
        let failed = report(result("exit", Some(1), None));
        let slow = report(result("wall_time", None, Some(9)));
        let compiled = report(result("exit", Some(0), None));
        for (cause, parts, status) in [
            ("exit", failed, 6),
            ("wall_time", slow, 6),
            ("guest_panic", compiled, 13),
            ("infrastructure", json!({"error": "no image"}), 13),
            ("cancelled", json!({"error": "cancelled"}), 13),
            ("memory", json!({"error": "out of memory"}), 12),
        ] {
            let ended = execution(cause, parts);
            let verdict = Verdict::of(&any, &ended, b"");
            assert_eq!(
                (verdict.status.id, verdict.exit_code()),
                (status, None),
                "{cause}"
            );
        }
    }

    #[test]
    fn only_a_fatal_signal_is_an_exit_signal() {
        let any = Submission::default();
        for (run, code, signal) in [
            (result("signal", None, Some(11)), 0, Some(11)),
            (result("wall_time", None, Some(9)), 0, None),
            (result("exit", Some(7), None), 7, None),
        ] {
            let ended = execution("exit", json!({"run": run}));
            let verdict = Verdict::of(&any, &ended, b"");
            assert_eq!(
                (verdict.exit_code(), verdict.exit_signal()),
                (Some(code), signal)
            );
        }
    }
}
