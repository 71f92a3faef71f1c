//! Arguments and variables of a request.

use cloude_protocol::agent::{MAX_ARGUMENT_BYTES, MAX_ARGUMENTS_BYTES};
use cloude_protocol::api::ExecutionRequest;

use crate::jobs::refused::{Refused, ensure};

/// Bytes of everything that the request carries.
pub fn size(request: &ExecutionRequest) -> usize {
    let files = request
        .files
        .iter()
        .map(|file| file.path.len() + file.content.0.len());
    let lists = [&request.args, &request.compile_options, &request.artifacts];
    let lists = lists.into_iter().flatten().map(String::len);
    let env = variables(request).map(|(_, name, value)| name.len() + value.len());
    let labels = request.labels.iter();
    let labels = labels.map(|(name, value)| name.len() + value.len());
    let parts = files.chain(lists).chain(env).chain(labels);
    request.code.len() + request.stdin.0.len() + parts.sum::<usize>()
}

/// Field, name and value of each variable.
pub fn variables(request: &ExecutionRequest) -> impl Iterator<Item = (&'static str, &str, &str)> {
    let env = request.env.iter();
    let env = env.map(|(name, value)| ("env", name.as_str(), value.as_str()));
    let secrets = request.secrets.iter();
    env.chain(secrets.map(|(name, value)| ("secrets", name.as_str(), value.0.as_str())))
}

/// Checks arguments and variables against the limits of Linux.
pub fn check(request: &ExecutionRequest) -> Result<(), Refused> {
    let mut total = 0;
    let lists = [
        ("args", &request.args),
        ("compile_options", &request.compile_options),
    ];
    for (list, texts) in lists {
        for (index, text) in texts.iter().enumerate() {
            let field = || format!("{list}[{index}]");
            ensure(!text.contains('\0'), || Refused::NulInArgument {
                field: field(),
            })?;
            total += check_length(text.len(), field)?;
        }
    }
    for (field, name, value) in variables(request) {
        let valid = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        ensure(valid, || Refused::Variable {
            field,
            name: shown(name),
        })?;
        let length = name.len() + 1 + value.len();
        total += check_length(length, || format!("{field}.{}", shown(name)))?;
    }
    if let Some(name) = request
        .secrets
        .keys()
        .find(|name| request.env.contains_key(*name))
    {
        return Err(Refused::SecretTwice { name: shown(name) });
    }
    ensure(total <= MAX_ARGUMENTS_BYTES, || Refused::LongTexts {
        bytes: total,
        limit: MAX_ARGUMENTS_BYTES,
    })
}

/// The start of a name for a message: the name itself may be as long as a request.
pub fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

/// Checks one argument or variable and returns its share of [`MAX_ARGUMENTS_BYTES`]: the text, its NUL byte and its
/// pointer.
fn check_length(length: usize, field: impl Fn() -> String) -> Result<usize, Refused> {
    const POINTER_BYTES: usize = 8;
    ensure(length < MAX_ARGUMENT_BYTES, || Refused::LongText {
        field: field(),
        bytes: length,
        limit: MAX_ARGUMENT_BYTES - 1,
    })?;
    Ok(length + 1 + POINTER_BYTES)
}
