//! A request of Piston as an [`ExecutionRequest`].

use cloude_protocol::api::{CompileLimits, ExecutionRequest, Limits, OnOutputLimit};
use cloude_protocol::language::Language;
use serde_json::{Map, Value};

use super::files::{AskedFile, place};
use crate::http::dialects::memory;
use crate::jobs::Refused;

/// A body with valid fields.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    pub language: String,
    pub version: String,
    files: Vec<AskedFile>,
    stdin: String,
    args: Vec<String>,
    run_timeout: Option<u64>,
    compile_timeout: Option<u64>,
    run_cpu_time: Option<u64>,
    compile_cpu_time: Option<u64>,
    run_memory_limit: Option<u64>,
    compile_memory_limit: Option<u64>,
}

impl Asked {
    /// Checks the fields of a body. The error is the message for the client.
    pub fn of(mut body: Map<String, Value>) -> Result<Self, String> {
        let language = required(body.remove("language"), "language")?;
        let version = required(body.remove("version"), "version")?;
        let Some(Value::Array(files)) = body.remove("files") else {
            return Err("files is required as an array".into());
        };
        let files = files.into_iter().enumerate();
        let stdin = match body.remove("stdin") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(stdin)) => stdin,
            Some(_) => return Err("If specified, stdin must be a string".into()),
        };
        let limit = |name| limit(body.get(name), name);
        Ok(Asked {
            language,
            version,
            files: files
                .map(|(index, file)| AskedFile::of(index, file))
                .collect::<Result<_, _>>()?,
            stdin,
            args: args(body.get("args"))?,
            run_timeout: limit("run_timeout")?,
            compile_timeout: limit("compile_timeout")?,
            run_cpu_time: limit("run_cpu_time")?,
            compile_cpu_time: limit("compile_cpu_time")?,
            run_memory_limit: limit("run_memory_limit")?,
            compile_memory_limit: limit("compile_memory_limit")?,
        })
    }

    /// The request in this language. `default_mib`: the VM's memory without a limit.
    pub fn request(
        self,
        language: &Language,
        default_mib: u64,
    ) -> Result<ExecutionRequest, String> {
        let limits = Limits {
            wall_time_ms: self.run_timeout,
            cpu_time_ms: self.run_cpu_time,
            memory_bytes: self.memory_bytes(language, default_mib),
            compile: CompileLimits {
                wall_time_ms: self.compile_timeout,
                cpu_time_ms: self.compile_cpu_time,
                ..CompileLimits::default()
            },
            ..Limits::default()
        };
        let request = ExecutionRequest {
            language: language.name.clone(),
            stdin: self.stdin.into(),
            args: self.args,
            limits,
            on_output_limit: OnOutputLimit::Kill,
            ..ExecutionRequest::default()
        };
        place(self.files, language, request)
    }

    /// The larger limit: a VM has one memory for both stages.
    fn memory_bytes(&self, language: &Language, default_mib: u64) -> Option<u64> {
        let compile = self
            .compile_memory_limit
            .filter(|_| language.compile.is_some());
        memory::above_default(self.run_memory_limit.max(compile), default_mib)
    }

    /// The name of the limit that decided the VM's memory.
    pub fn memory_field(&self) -> &'static str {
        match self.run_memory_limit < self.compile_memory_limit {
            true => "compile_memory_limit",
            false => "run_memory_limit",
        }
    }
}

/// A refused limit in Piston's words.
pub fn limit_refused(refused: &Refused, memory_field: &str) -> Option<String> {
    let Refused::Limit { field, limit, .. } = refused else {
        return None;
    };
    let name = match *field {
        "wall_time_ms" => "run_timeout",
        "compile.wall_time_ms" => "compile_timeout",
        "cpu_time_ms" => "run_cpu_time",
        "compile.cpu_time_ms" => "compile_cpu_time",
        "memory_bytes" => memory_field,
        _ => return None,
    };
    Some(format!(
        "{name} cannot exceed the configured limit of {limit}"
    ))
}

fn required(value: Option<Value>, name: &str) -> Result<String, String> {
    match value {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(format!("{name} is required as a string")),
    }
}

fn args(value: Option<&Value>) -> Result<Vec<String>, String> {
    let invalid = || "If specified, args must be an array of strings".to_owned();
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(args)) => args
            .iter()
            .map(|arg| arg.as_str().map(str::to_owned).ok_or_else(invalid))
            .collect(),
        Some(_) => Err(invalid()),
    }
}

/// A limit in milliseconds or bytes. None is the server's default: absent, null, 0 or -1.
fn limit(value: Option<&Value>, name: &str) -> Result<Option<u64>, String> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value
            .as_f64()
            .ok_or_else(|| format!("If specified, {name} must be a number"))?,
    };
    match number {
        0.0 | -1.0 => Ok(None),
        number if number < 0.0 => Err(format!("{name} must be non-negative")),
        // A float larger than u64 becomes u64::MAX, which exceeds every maximum.
        number => Ok(Some(number.ceil() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use cloude_protocol::agent::File;
    use serde_json::json;

    use super::*;

    fn language(name: &str) -> Language {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages");
        cloude_protocol::languages::load(dir.as_ref(), name).unwrap()
    }

    fn asked(body: Value) -> Result<Asked, String> {
        let Value::Object(mut body) = body else {
            panic!("{body}")
        };
        for (name, value) in [
            ("language", json!("python")),
            ("version", json!("*")),
            ("files", json!([{"content": "print(1)"}])),
        ] {
            body.entry(name).or_insert(value);
        }
        Asked::of(body)
    }

    fn translated(name: &str, body: Value) -> ExecutionRequest {
        asked(body).unwrap().request(&language(name), 256).unwrap()
    }

    #[test]
    fn every_field_is_translated() {
        let request = translated(
            "c",
            json!({
                "files": [
                    {"name": "main.c", "content": "int main;"},
                    {"name": "lib/add.c", "content": "int add;"},
                    {"name": "add.h", "content": "h"},
                    {"name": "data", "content": "/wA=", "encoding": "base64"},
                    {"content": "00fF", "encoding": "hex"},
                ],
                "stdin": "in", "args": ["a", "b c"],
                "run_timeout": 3000, "compile_timeout": 10000, "run_cpu_time": 2000.5, "compile_cpu_time": 9000,
                "run_memory_limit": 300 << 20, "compile_memory_limit": 512 << 20, "unknown": true,
            }),
        );

        let file = |path: &str, content: &[u8]| File {
            path: path.into(),
            content: content.to_vec().into(),
            mode: None,
        };
        let expected = ExecutionRequest {
            language: "c".into(),
            entrypoint: Some("main.c".into()),
            compile_options: vec!["./lib/add.c".into()],
            files: vec![
                file("main.c", b"int main;"),
                file("lib/add.c", b"int add;"),
                file("add.h", b"h"),
                file("data", &[0xff, 0]),
                file("file4.code", &[0, 0xff]),
            ],
            stdin: "in".into(),
            args: vec!["a".into(), "b c".into()],
            limits: Limits {
                wall_time_ms: Some(3000),
                cpu_time_ms: Some(2001),
                memory_bytes: Some(512 << 20),
                compile: CompileLimits {
                    wall_time_ms: Some(10000),
                    cpu_time_ms: Some(9000),
                    ..CompileLimits::default()
                },
                ..Limits::default()
            },
            on_output_limit: OnOutputLimit::Kill,
            ..ExecutionRequest::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn the_first_text_is_the_program() {
        let request = translated(
            "python",
            json!({"files": [
                {"name": "x.bin", "content": "AA==", "encoding": "base64"},
                {"content": "print(1)"},
                {"name": "/lib.py", "content": "x = 1"},
            ]}),
        );
        assert_eq!(
            (request.code.as_str(), &request.entrypoint),
            ("print(1)", &None)
        );
        let paths: Vec<_> = request
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(paths, ["x.bin", "lib.py"]);
    }

    #[test]
    fn a_program_with_a_foreign_extension_is_code() {
        let files = json!([{"name": "program", "content": "int main;"}]);
        let request = translated("c", json!({"files": files}));
        assert_eq!(request.code, "int main;");
        assert!(request.files.is_empty() && request.entrypoint.is_none());
    }

    #[test]
    fn an_empty_program_is_a_file() {
        let request = translated("python", json!({"files": [{"content": ""}]}));
        assert_eq!(request.entrypoint.as_deref(), Some("main.py"));
        assert_eq!(request.files.len(), 1);
    }

    #[test]
    fn absent_null_zero_and_minus_one_are_the_defaults() {
        for value in [Value::Null, json!(0), json!(-1), json!(-1.0)] {
            let request = translated(
                "c",
                json!({
                    "run_timeout": value, "compile_timeout": value, "run_cpu_time": value,
                    "compile_cpu_time": value, "run_memory_limit": value, "compile_memory_limit": value,
                    "stdin": null, "args": null,
                }),
            );
            assert_eq!(request.limits, Limits::default(), "{value}");
        }
    }

    #[test]
    fn memory_below_the_default_is_the_default() {
        let memory = |name, run: u64, compile: u64| {
            let limits =
                json!({"run_memory_limit": run << 20, "compile_memory_limit": compile << 20});
            translated(name, limits).limits.memory_bytes
        };
        assert_eq!(memory("c", 10, 20), None);
        assert_eq!(memory("c", 10, 300), Some(300 << 20));
        assert_eq!(memory("python", 10, 300), None, "without a compiler");
    }

    #[test]
    fn invalid_fields_are_named_as_piston_does() {
        let file = |file: Value| json!({"files": [{"content": ""}, file]});
        for (body, message) in [
            (json!({"language": 1}), "language is required as a string"),
            (json!({"version": ""}), "version is required as a string"),
            (json!({"files": {}}), "files is required as an array"),
            (file(json!("x")), "files[1] must be an object"),
            (file(json!({})), "files[1].content is required as a string"),
            (
                file(json!({"content": "", "name": 1})),
                "files[1].name must be a string",
            ),
            (
                file(json!({"content": "?", "encoding": "base64"})),
                "files[1].content is not valid base64",
            ),
            (
                file(json!({"content": "0", "encoding": "hex"})),
                "files[1].content is not valid hex",
            ),
            (json!({"stdin": 1}), "If specified, stdin must be a string"),
            (
                json!({"args": [1]}),
                "If specified, args must be an array of strings",
            ),
            (
                json!({"run_timeout": "1"}),
                "If specified, run_timeout must be a number",
            ),
            (
                json!({"compile_memory_limit": -2}),
                "compile_memory_limit must be non-negative",
            ),
        ] {
            assert_eq!(asked(body).unwrap_err(), message);
        }
        let binary = asked(json!({"files": [{"content": "", "encoding": "hex"}]})).unwrap();
        let error = binary.request(&language("python"), 256).unwrap_err();
        assert_eq!(error, "files must include at least one utf8 encoded file");
    }

    #[test]
    fn refused_limits_have_pistons_names() {
        for (field, name) in [
            ("wall_time_ms", "run_timeout"),
            ("compile.wall_time_ms", "compile_timeout"),
            ("cpu_time_ms", "run_cpu_time"),
            ("compile.cpu_time_ms", "compile_cpu_time"),
            ("memory_bytes", "compile_memory_limit"),
        ] {
            let (value, least, limit) = (9, 1, 5);
            let refused = Refused::Limit {
                field,
                value,
                least,
                limit,
            };
            assert_eq!(
                limit_refused(&refused, "compile_memory_limit").unwrap(),
                format!("{name} cannot exceed the configured limit of 5")
            );
        }
    }
}
