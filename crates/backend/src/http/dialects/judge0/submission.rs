//! A submission: the fields of a request.

use cloude_protocol::Data;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bounds::Bounds;
use super::fields::{Errors, Fields};

/// Longest options and arguments in characters.
const MAX_WORDS: usize = 512;
/// Least `memory_limit` in KiB.
const LEAST_MEMORY: u64 = 2048;

/// A submission as it is stored. A limit that the client did not send is `None`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Submission {
    pub language_id: u32,
    pub source_code: Data,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_output: Option<Data>,
    /// A zip archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_files: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler_options: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_line_arguments: Option<String>,
    /// In seconds, as the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time_limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_extra_time: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time_limit: Option<f64>,
    /// In KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// In KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_processes_and_or_threads: Option<u64>,
    /// In KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_size: Option<u64>,
    pub enable_per_process_and_thread_time_limit: bool,
    pub enable_per_process_and_thread_memory_limit: bool,
    pub redirect_stderr_to_stdout: bool,
    pub enable_network: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
}

impl Submission {
    /// Checks the fields of a body. `is_base64`: `source_code`, `stdin` and `expected_output` are base64.
    pub fn of(body: Map<String, Value>, is_base64: bool, bounds: &Bounds) -> Result<Self, Errors> {
        let mut fields = Fields::of(body, is_base64);
        let language_id = fields.integer("language_id", 0, u32::MAX.into());
        if language_id.is_none() && fields.errors.0.is_empty() {
            fields.errors.add("language_id", "can't be blank");
        }
        // Each execution is one VM.
        fields.integer("number_of_runs", 1, 1);
        let submission = Submission {
            language_id: language_id.map_or(0, |id| u32::try_from(id).unwrap_or(u32::MAX)),
            source_code: fields.data("source_code").unwrap_or_default(),
            stdin: fields.data("stdin"),
            expected_output: fields.data("expected_output"),
            additional_files: fields
                .base64("additional_files")
                .filter(|zip| !zip.0.is_empty()),
            compiler_options: words(&mut fields, "compiler_options"),
            command_line_arguments: words(&mut fields, "command_line_arguments"),
            cpu_time_limit: fields.number("cpu_time_limit", 0.0, bounds.cpu_time.most),
            cpu_extra_time: fields.number("cpu_extra_time", 0.0, bounds.cpu_extra_time.most),
            wall_time_limit: fields.number("wall_time_limit", 1.0, bounds.wall_time.most),
            memory_limit: fields.integer("memory_limit", LEAST_MEMORY, bounds.memory.most),
            stack_limit: fields.integer("stack_limit", 0, bounds.stack.most),
            max_processes_and_or_threads: fields.integer(
                "max_processes_and_or_threads",
                1,
                bounds.processes.most,
            ),
            max_file_size: fields.integer("max_file_size", 0, bounds.file.most),
            enable_per_process_and_thread_time_limit: fields
                .flag("enable_per_process_and_thread_time_limit"),
            enable_per_process_and_thread_memory_limit: fields
                .flag("enable_per_process_and_thread_memory_limit"),
            redirect_stderr_to_stdout: fields.flag("redirect_stderr_to_stdout"),
            enable_network: fields.flag("enable_network"),
            callback_url: fields.text("callback_url"),
        };
        let source = &submission.source_code.0;
        let is_invalid = fields.errors.0.contains_key("source_code");
        if source.trim_ascii().is_empty() && !is_invalid {
            fields.errors.add("source_code", "can't be blank");
        }
        match fields.errors.0.is_empty() {
            true => Ok(submission),
            false => Err(fields.errors),
        }
    }
}

fn words(fields: &mut Fields, field: &str) -> Option<String> {
    let text = fields.text(field)?;
    if text.chars().count() > MAX_WORDS {
        let message = format!("is too long (maximum is {MAX_WORDS} characters)");
        fields.errors.add(field, message);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Config;

    fn of(body: Value, is_base64: bool) -> Result<Submission, Errors> {
        let Value::Object(mut body) = body else {
            panic!("{body}")
        };
        for (name, value) in [("language_id", json!(71)), ("source_code", json!("eA=="))] {
            body.entry(name).or_insert(value);
        }
        Submission::of(body, is_base64, &Bounds::of(&Config::default()))
    }

    #[test]
    fn every_field_is_read() {
        let body = json!({
            "source_code": "cHJpbnQo\nMSk=\n", "stdin": "aW4", "expected_output": "b3V0", "additional_files": "UEs=",
            "compiler_options": "-O3", "command_line_arguments": "a b", "number_of_runs": 1,
            "cpu_time_limit": 2, "cpu_extra_time": "0.5", "wall_time_limit": 5.0, "memory_limit": 128000.0,
            "stack_limit": 64000, "max_processes_and_or_threads": 60, "max_file_size": 1024,
            "enable_per_process_and_thread_time_limit": true,
            "enable_per_process_and_thread_memory_limit": "true", "redirect_stderr_to_stdout": 1,
            "enable_network": true, "callback_url": "https://a.example", "unknown": 1,
        });
        let expected = Submission {
            language_id: 71,
            source_code: "print(1)".into(),
            stdin: Some("in".into()),
            expected_output: Some("out".into()),
            additional_files: Some("PK".into()),
            compiler_options: Some("-O3".into()),
            command_line_arguments: Some("a b".into()),
            cpu_time_limit: Some(2.0),
            cpu_extra_time: Some(0.5),
            wall_time_limit: Some(5.0),
            memory_limit: Some(128_000),
            stack_limit: Some(64_000),
            max_processes_and_or_threads: Some(60),
            max_file_size: Some(1024),
            enable_per_process_and_thread_time_limit: true,
            enable_per_process_and_thread_memory_limit: true,
            redirect_stderr_to_stdout: true,
            enable_network: true,
            callback_url: Some("https://a.example".into()),
        };
        let read = of(body, true).unwrap();
        assert_eq!(read, expected);
        let stored = serde_json::to_string(&read).unwrap();
        assert_eq!(
            serde_json::from_str::<Submission>(&stored).unwrap(),
            expected
        );
    }

    #[test]
    fn null_and_empty_fields_are_absent() {
        let body = json!({
            "source_code": "x", "stdin": null, "compiler_options": "", "cpu_time_limit": null, "memory_limit": "",
            "enable_network": null, "callback_url": "", "additional_files": "",
        });
        let expected = Submission {
            language_id: 71,
            source_code: "x".into(),
            ..Submission::default()
        };
        assert_eq!(of(body, false).unwrap(), expected);
    }

    #[test]
    fn invalid_fields_are_named_as_rails_does() {
        for (field, value, message) in [
            ("language_id", Value::Null, "can't be blank"),
            ("language_id", json!("python"), "is not a number"),
            ("source_code", json!(" \n"), "can't be blank"),
            ("source_code", json!(1), "must be a string"),
            ("additional_files", json!("?"), "is not valid base64"),
            (
                "number_of_runs",
                json!(2),
                "must be less than or equal to 1",
            ),
            (
                "cpu_time_limit",
                json!(-1),
                "must be greater than or equal to 0",
            ),
            (
                "cpu_extra_time",
                json!(6),
                "must be less than or equal to 5",
            ),
            (
                "wall_time_limit",
                json!(0.5),
                "must be greater than or equal to 1",
            ),
            (
                "wall_time_limit",
                json!(601),
                "must be less than or equal to 600",
            ),
            (
                "memory_limit",
                json!(2047),
                "must be greater than or equal to 2048",
            ),
            ("stack_limit", json!("x"), "is not a number"),
            (
                "max_processes_and_or_threads",
                json!(0),
                "must be greater than or equal to 1",
            ),
            (
                "redirect_stderr_to_stdout",
                json!("yes"),
                "must be true or false",
            ),
            (
                "compiler_options",
                json!("x".repeat(513)),
                "is too long (maximum is 512 characters)",
            ),
        ] {
            let Errors(errors) = of(json!({field: value}), false).unwrap_err();
            assert_eq!(
                errors,
                [(field.to_owned(), vec![message.to_owned()])].into(),
                "{value}"
            );
        }
    }

    #[test]
    fn all_errors_are_reported_together() {
        let body = json!({"source_code": "", "cpu_time_limit": "x", "stdin": 1});
        let Errors(errors) = of(body, false).unwrap_err();
        assert_eq!(
            errors.into_keys().collect::<Vec<_>>(),
            ["cpu_time_limit", "source_code", "stdin"]
        );
    }

    #[test]
    fn only_base64_requests_are_decoded() {
        assert_eq!(of(json!({}), false).unwrap().source_code, "eA==".into());
        assert_eq!(of(json!({}), true).unwrap().source_code, "x".into());
        let Errors(errors) = of(json!({"stdin": "?"}), true).unwrap_err();
        assert_eq!(errors["stdin"], ["is not valid base64"]);
    }
}
