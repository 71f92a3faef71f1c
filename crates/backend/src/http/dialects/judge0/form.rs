//! The form of an answer: the fields that a client asks for, as texts or in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Characters of a line of base64.
const LINE: usize = 60;

/// The fields of an answer, if the client does not choose.
pub const DEFAULT_FIELDS: [&str; 8] = [
    "token",
    "time",
    "memory",
    "stdout",
    "stderr",
    "compile_output",
    "message",
    "status",
];

/// All fields.
pub const FIELDS: [&str; 35] = [
    "token",
    "language_id",
    "language",
    "source_code",
    "stdin",
    "expected_output",
    "additional_files",
    "compiler_options",
    "command_line_arguments",
    "number_of_runs",
    "cpu_time_limit",
    "cpu_extra_time",
    "wall_time_limit",
    "memory_limit",
    "stack_limit",
    "max_processes_and_or_threads",
    "enable_per_process_and_thread_time_limit",
    "enable_per_process_and_thread_memory_limit",
    "max_file_size",
    "redirect_stderr_to_stdout",
    "enable_network",
    "callback_url",
    "status",
    "status_id",
    "created_at",
    "finished_at",
    "time",
    "wall_time",
    "memory",
    "stdout",
    "stderr",
    "compile_output",
    "message",
    "exit_code",
    "exit_signal",
];

/// A text is not UTF-8, and the client did not ask for base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Texts are base64.
    pub is_base64: bool,
    pub fields: Vec<&'static str>,
}

impl Form {
    /// The form of a client that names the fields, with commas; `*` stands for all. The error has the unknown ones.
    pub fn of(is_base64: bool, fields: Option<&str>) -> Result<Self, Vec<String>> {
        let names = fields
            .unwrap_or_default()
            .split(',')
            .filter(|name| !name.is_empty());
        let (mut known, mut unknown, mut has_all) = (Vec::new(), Vec::new(), false);
        for name in names {
            let found = FIELDS.into_iter().find(|field| *field == name);
            match found {
                _ if name == "*" => has_all = true,
                Some(field) => known.push(field),
                None => unknown.push(name.to_owned()),
            }
        }
        match unknown.is_empty() {
            false => Err(unknown),
            true if has_all => Ok(Form {
                is_base64,
                fields: FIELDS.to_vec(),
            }),
            true if known.is_empty() => Ok(Form::default_of(is_base64)),
            true => Ok(Form {
                is_base64,
                fields: known,
            }),
        }
    }

    /// The form of a client that does not choose the fields.
    pub fn default_of(is_base64: bool) -> Self {
        Form {
            is_base64,
            fields: DEFAULT_FIELDS.to_vec(),
        }
    }

    /// A text.
    pub fn text(&self, bytes: &[u8]) -> Result<Value, NotUtf8> {
        if !self.is_base64 {
            let text = std::str::from_utf8(bytes).map_err(|_| NotUtf8)?;
            return Ok(text.into());
        }
        Ok(in_lines(bytes).into())
    }

    /// A text, or null.
    pub fn option(&self, bytes: Option<&[u8]>) -> Result<Value, NotUtf8> {
        bytes.map_or(Ok(Value::Null), |bytes| self.text(bytes))
    }
}

/// Base64 in lines that each end with a newline, as Ruby writes it.
pub fn in_lines(bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    let mut text = String::with_capacity(encoded.len() + encoded.len() / LINE + 1);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_named() {
        assert_eq!(
            Form::of(true, Some("stdout,a,*,b")),
            Err(vec!["a".into(), "b".into()])
        );
        assert_eq!(Form::of(true, Some("")), Ok(Form::default_of(true)));
    }

    #[test]
    fn base64_has_lines_of_sixty_characters() {
        let text = in_lines(&[0; 46]);
        let lines: Vec<usize> = text.split_inclusive('\n').map(str::len).collect();
        assert_eq!(lines, [61, 5]);
        assert_eq!(in_lines(b""), "");
    }
}
