//! The files of a request: their encodings, and which one is the program.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloude_protocol::Data;
use cloude_protocol::agent::File;
use cloude_protocol::api::ExecutionRequest;
use cloude_protocol::language::Language;
use serde_json::Value;

/// Languages whose compiler gets all files of a request with the language's extensions.
const COMPILED_TOGETHER: [&str; 2] = ["c", "cpp"];

/// An item of `files`.
#[derive(Debug, PartialEq)]
pub struct AskedFile {
    /// None if it is absent or empty.
    name: Option<String>,
    content: Vec<u8>,
    /// Its encoding is utf8.
    is_text: bool,
}

impl AskedFile {
    /// Checks an item. The error is the message for the client.
    pub fn of(index: usize, file: Value) -> Result<Self, String> {
        let Value::Object(mut file) = file else {
            return Err(format!("files[{index}] must be an object"));
        };
        let Some(Value::String(content)) = file.remove("content") else {
            return Err(format!("files[{index}].content is required as a string"));
        };
        let name = match file.remove("name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name).filter(|name| !name.is_empty()),
            Some(_) => return Err(format!("files[{index}].name must be a string")),
        };
        let encoding = file.get("encoding").and_then(Value::as_str);
        let invalid = |encoding| format!("files[{index}].content is not valid {encoding}");
        // An unknown encoding is utf8, as in the original.
        let (content, is_text) = match encoding {
            Some("base64") => {
                let text: String = content.split_whitespace().collect();
                let bytes = STANDARD.decode(text).map_err(|_| invalid("base64"))?;
                (bytes, false)
            }
            Some("hex") => {
                let bytes = const_hex::decode(content.trim()).map_err(|_| invalid("hex"))?;
                (bytes, false)
            }
            _ => (content.into_bytes(), true),
        };
        Ok(AskedFile {
            name,
            content,
            is_text,
        })
    }

    /// Its path below the work directory.
    fn path(&self, index: usize) -> String {
        let Some(name) = &self.name else {
            return format!("file{index}.code");
        };
        let mut path = name.as_str();
        while let Some(rest) = path.strip_prefix("./").or_else(|| path.strip_prefix('/')) {
            path = rest;
        }
        path.to_owned()
    }
}

/// Puts the files into the request. The first text is the program.
pub fn place(
    files: Vec<AskedFile>,
    language: &Language,
    mut request: ExecutionRequest,
) -> Result<ExecutionRequest, String> {
    let Some(program) = files.iter().position(|file| file.is_text) else {
        return Err("files must include at least one utf8 encoded file".into());
    };
    for (index, file) in files.into_iter().enumerate() {
        let mut path = file.path(index);
        let is_source = file.is_text && file.name.is_some() && has_extension(&path, language);
        if index != program {
            if is_source && COMPILED_TOGETHER.contains(&language.name.as_str()) {
                request.compile_options.push(format!("./{path}"));
            }
        } else if is_source {
            request.entrypoint = Some(path.clone());
        } else {
            let code = String::from_utf8(file.content).unwrap_or_default();
            if !code.trim().is_empty() {
                request.code = code;
                continue;
            }
            // An empty program is valid, and it is a file: an empty `code` is not.
            path.clone_from(&language.file);
            request.entrypoint = Some(path.clone());
            request.files.push(text(path, code));
            continue;
        }
        request.files.push(File {
            path,
            content: Data(file.content),
            mode: None,
        });
    }
    Ok(request)
}

fn text(path: String, content: String) -> File {
    File {
        path,
        content: content.into(),
        mode: None,
    }
}

/// True if the compiler or interpreter knows the file by its name.
fn has_extension(path: &str, language: &Language) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| language.extensions.iter().any(|known| known == extension))
}
