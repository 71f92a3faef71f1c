//! A submission as an [`ExecutionRequest`].

use cloude_protocol::agent::File;
use cloude_protocol::api::{ExecutionRequest, Limits, OnOutputLimit};
use cloude_protocol::language::Language;

use super::archive;
use super::bounds::Bounds;
use super::fields::Errors;
use super::submission::Submission;
use crate::http::dialects::memory;
use crate::jobs::Refused;

/// Characters that Judge0 removes from options and arguments, because a shell reads them there.
const REMOVED: [char; 7] = ['$', '&', ';', '<', '>', '|', '`'];

impl Submission {
    /// The request in this language. `default_mib`: the VM's memory without a limit.
    pub fn request(
        &self,
        language: &Language,
        default_mib: u64,
        bounds: &Bounds,
    ) -> Result<ExecutionRequest, Errors> {
        let mut errors = Errors::default();
        let mut words = |field: &str, text: &Option<String>| {
            split(text.as_deref()).unwrap_or_else(|| {
                errors.add(field, "has a quote that is not closed");
                Vec::new()
            })
        };
        let compile_options = words("compiler_options", &self.compiler_options);
        let args = words("command_line_arguments", &self.command_line_arguments);
        let archive = self
            .additional_files
            .as_ref()
            .map_or(Ok(Vec::new()), |zip| {
                archive::files(zip, &language.file, bounds.files_bytes)
            });
        let mut files = archive.unwrap_or_else(|message| {
            errors.add("additional_files", message);
            Vec::new()
        });
        if !errors.0.is_empty() {
            return Err(errors);
        }
        let (mut code, mut entrypoint) = (String::new(), None);
        match std::str::from_utf8(&self.source_code.0) {
            Ok(text) => text.clone_into(&mut code),
            Err(_) => {
                entrypoint = Some(language.file.clone());
                files.push(File {
                    path: language.file.clone(),
                    content: self.source_code.clone(),
                    mode: None,
                });
            }
        }
        Ok(ExecutionRequest {
            language: language.name.clone(),
            code,
            entrypoint,
            compile_options,
            files,
            stdin: self.stdin.clone().unwrap_or_default(),
            args,
            network: self.enable_network,
            limits: self.limits(language, default_mib, bounds),
            on_output_limit: OnOutputLimit::Kill,
            callback_url: self.callback_url.clone(),
            ..ExecutionRequest::default()
        })
    }

    /// A time or size of 0 sets no limit, as for isolate(1).
    fn limits(&self, language: &Language, default_mib: u64, bounds: &Bounds) -> Limits {
        let ms = |seconds: f64| ((seconds * 1000.0).ceil() as u64).max(1);
        let bytes = |kib: u64| kib.saturating_mul(1024);
        let cpu_time = self.cpu_time_limit.filter(|seconds| *seconds > 0.0);
        let extra = self.cpu_extra_time.unwrap_or(bounds.cpu_extra_time.default);
        let memory = self.memory_limit.map(bytes);
        let default_stack = language.compile.as_ref().map(|_| bounds.stack.default);
        let file = self.max_file_size.filter(|kib| *kib > 0).map(bytes);
        Limits {
            wall_time_ms: self.wall_time_limit.map(ms),
            cpu_time_ms: cpu_time.map(|seconds| ms((seconds + extra).min(bounds.cpu_time.most))),
            memory_bytes: memory::above_default(memory, default_mib),
            stack_bytes: self
                .stack_limit
                .or(default_stack)
                .filter(|kib| *kib > 0)
                .map(bytes),
            processes: self
                .max_processes_and_or_threads
                .map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            file_bytes: file,
            // Output is a file in Judge0.
            output_bytes: file.map(|bytes| bytes.min(bounds.output_bytes)),
            ..Limits::default()
        }
    }
}

/// The words of options or arguments, as a shell splits them. None if a quote is not closed.
fn split(text: Option<&str>) -> Option<Vec<String>> {
    shlex::split(&text.unwrap_or_default().replace(REMOVED, ""))
}

/// The error of a refused request, by the field of the submission. None if it belongs to no field.
pub fn refused(refused: &Refused) -> Option<Errors> {
    let mut errors = Errors::default();
    let field = match refused {
        Refused::NoCompiler { .. } => {
            let message = "setting compiler options is only allowed for compiled languages";
            errors.add("compiler_options", message);
            return Some(errors);
        }
        Refused::NoNetwork => {
            errors.add("enable_network", "enabling network is not allowed");
            return Some(errors);
        }
        Refused::TooLarge { .. } | Refused::LanguageFile { .. } => return None,
        refused => refused.field()?,
    };
    let name = match field.split(['.', '[']).next().unwrap_or_default() {
        "code" | "entrypoint" => "source_code",
        "compile_options" => "compiler_options",
        "args" => "command_line_arguments",
        "files" => "additional_files",
        "callback_url" => "callback_url",
        "limits" => match field.as_str() {
            "limits.wall_time_ms" => "wall_time_limit",
            "limits.cpu_time_ms" => "cpu_time_limit",
            "limits.memory_bytes" => "memory_limit",
            "limits.stack_bytes" => "stack_limit",
            "limits.processes" => "max_processes_and_or_threads",
            _ => "max_file_size",
        },
        _ => "language_id",
    };
    errors.add(name, refused.to_string());
    Some(errors)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::config::Config;

    fn language(name: &str) -> Language {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages");
        cloude_protocol::languages::load(dir.as_ref(), name).unwrap()
    }

    fn translated(name: &str, submission: &Submission) -> Result<ExecutionRequest, Errors> {
        submission.request(&language(name), 256, &Bounds::of(&Config::default()))
    }

    fn archive(files: &[(&str, &str, u32)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content, mode) in files {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            writer.start_file(*name, options).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn every_field_is_translated() {
        let zip = archive(&[
            ("./data/in.txt", "1", 0o644),
            ("run.sh", "true", 0o755),
            ("main.c", "not the program", 0o644),
            ("./run.sh", "false", 0o644),
        ]);
        let submission = Submission {
            language_id: 50,
            source_code: "int main;".into(),
            stdin: Some("in".into()),
            additional_files: Some(zip.into()),
            compiler_options: Some("-O3 -DX='a b' $(id); -lm".into()),
            command_line_arguments: Some("\"a b\" c".into()),
            cpu_time_limit: Some(2.0),
            cpu_extra_time: Some(0.5),
            wall_time_limit: Some(5.5),
            memory_limit: Some(300 << 10),
            stack_limit: Some(1),
            max_processes_and_or_threads: Some(60),
            max_file_size: Some(2048),
            enable_network: true,
            callback_url: Some("https://a.example".into()),
            ..Submission::default()
        };
        let file = |path: &str, content: &str, mode| File {
            path: path.into(),
            content: content.into(),
            mode: Some(mode),
        };
        let expected = ExecutionRequest {
            language: "c".into(),
            code: "int main;".into(),
            compile_options: ["-O3", "-DX=a b", "(id)", "-lm"]
                .map(str::to_owned)
                .to_vec(),
            files: vec![
                file("data/in.txt", "1", 0o644),
                file("run.sh", "true", 0o755),
            ],
            stdin: "in".into(),
            args: vec!["a b".into(), "c".into()],
            network: true,
            limits: Limits {
                wall_time_ms: Some(5500),
                cpu_time_ms: Some(2500),
                memory_bytes: Some(300 << 20),
                stack_bytes: Some(1024),
                processes: Some(60),
                file_bytes: Some(2 << 20),
                output_bytes: Some(2 << 20),
                ..Limits::default()
            },
            on_output_limit: OnOutputLimit::Kill,
            callback_url: Some("https://a.example".into()),
            ..ExecutionRequest::default()
        };
        assert_eq!(translated("c", &submission).unwrap(), expected);
    }

    #[test]
    fn absent_and_zero_limits_are_the_servers() {
        let zero = Submission {
            source_code: "x".into(),
            cpu_time_limit: Some(0.0),
            stack_limit: Some(0),
            max_file_size: Some(0),
            memory_limit: Some(2048),
            ..Submission::default()
        };
        assert_eq!(
            translated("python", &zero).unwrap().limits,
            Limits::default()
        );
        let none = Submission {
            source_code: "x".into(),
            ..Submission::default()
        };
        assert_eq!(
            translated("python", &none).unwrap().limits,
            Limits::default()
        );
        let stack = translated("c", &none).unwrap().limits.stack_bytes;
        assert_eq!(stack, Some(64_000 << 10), "programs of a compiler");
    }

    #[test]
    fn a_program_that_is_no_text_is_a_file() {
        let submission = Submission {
            source_code: vec![0xff].into(),
            ..Submission::default()
        };
        let request = translated("python", &submission).unwrap();
        assert_eq!(
            (request.code.as_str(), request.entrypoint.as_deref()),
            ("", Some("main.py"))
        );
        assert_eq!(request.files[0].content.0, [0xff]);
    }

    #[test]
    fn invalid_archives_and_quotes_are_refused() {
        let bounds = Bounds {
            files_bytes: 3,
            ..Bounds::of(&Config::default())
        };
        for (zip, text) in [
            (b"PK".to_vec(), "is not a zip archive"),
            (b"PK\x01\x02".repeat(10_001), "more than 10000 entries"),
            (
                archive(&[("a", "12", 0o644), ("b", "34", 0o644)]),
                "more than 3 bytes",
            ),
        ] {
            let submission = Submission {
                additional_files: Some(zip.into()),
                command_line_arguments: Some("'a".into()),
                ..Submission::default()
            };
            let Errors(errors) = submission
                .request(&language("c"), 256, &bounds)
                .unwrap_err();
            assert!(errors["additional_files"][0].contains(text), "{errors:?}");
            assert!(errors["command_line_arguments"][0].contains("quote"));
        }
    }

    #[test]
    fn refusals_have_the_submissions_names() {
        let limit = |field| Refused::Limit {
            field,
            value: 9,
            least: 1,
            limit: 5,
        };
        let folder = Refused::FileIsFolder {
            parent: "a".into(),
            path: "a/b".into(),
        };
        let url = Refused::CallbackUrl {
            url: "x".into(),
            reason: "it is no URL",
        };
        for (error, field) in [
            (limit("memory_bytes"), "memory_limit"),
            (limit("wall_time_ms"), "wall_time_limit"),
            (limit("file_bytes"), "max_file_size"),
            (folder, "additional_files"),
            (url, "callback_url"),
            (Refused::NoNetwork, "enable_network"),
            (
                Refused::NoCompiler {
                    language: "python".into(),
                },
                "compiler_options",
            ),
            (
                Refused::NulInArgument {
                    field: "args[1]".into(),
                },
                "command_line_arguments",
            ),
        ] {
            let Errors(errors) = refused(&error).unwrap();
            assert!(errors.contains_key(field), "{error}: {errors:?}");
        }
        let large = Refused::TooLarge { bytes: 2, limit: 1 };
        assert_eq!(refused(&large), None);
    }
}
