//! Fields of a request that stand for themselves: user, version, labels, patterns.

use cloude_engine::languages::check_path;
use cloude_protocol::agent::TerminalSize;
use cloude_protocol::api::ExecutionRequest;
use cloude_protocol::language::{Language, is_of};

use super::texts::shown;
use crate::jobs::refused::{Refused, ensure};

/// The most labels of a request.
const MAX_LABELS: usize = 32;
/// Longest name of a label in bytes.
const MAX_LABEL_NAME: usize = 63;
/// Longest value of a label in bytes.
const MAX_LABEL_VALUE: usize = 255;
/// The most patterns of a request.
const MAX_PATTERNS: usize = 100;

/// Checks the fields that depend on no other field.
pub fn check(request: &ExecutionRequest) -> Result<(), Refused> {
    check_user(request.user.as_deref())?;
    check_terminal(request)?;
    check_labels(request)?;
    check_patterns(&request.artifacts)
}

/// A name or number of /etc/passwd, and one of /etc/group. Whether the image has them shows in the guest.
fn check_user(user: Option<&str>) -> Result<(), Refused> {
    let Some(user) = user else { return Ok(()) };
    let named = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte);
        (1..=32).contains(&part.len()) && part.bytes().all(known)
    };
    let parts: Vec<&str> = user.split(':').collect();
    ensure(parts.len() <= 2 && parts.into_iter().all(named), || {
        Refused::User { user: shown(user) }
    })
}

fn check_terminal(request: &ExecutionRequest) -> Result<(), Refused> {
    let terminal = request
        .interactive
        .and_then(|interactive| interactive.terminal);
    match terminal {
        Some(size) => check_size(size),
        None => Ok(()),
    }
}

/// Checks the size of a terminal.
pub fn check_size(size: TerminalSize) -> Result<(), Refused> {
    let TerminalSize { columns, rows } = size;
    let is_size = |count| (1..=1000).contains(&count);
    ensure(is_size(columns) && is_size(rows), || {
        Refused::TerminalSize { columns, rows }
    })
}

fn check_labels(request: &ExecutionRequest) -> Result<(), Refused> {
    let labels = &request.labels;
    ensure(labels.len() <= MAX_LABELS, || Refused::TooManyLabels {
        count: labels.len(),
        limit: MAX_LABELS,
    })?;
    for (name, value) in labels {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        let named = (1..=MAX_LABEL_NAME).contains(&name.len()) && name.bytes().all(known);
        let valued = value.len() <= MAX_LABEL_VALUE && !value.contains(char::is_control);
        ensure(named && valued, || Refused::Label { name: shown(name) })?;
    }
    Ok(())
}

fn check_patterns(patterns: &[String]) -> Result<(), Refused> {
    ensure(patterns.len() <= MAX_PATTERNS, || {
        Refused::TooManyPatterns {
            count: patterns.len(),
            limit: MAX_PATTERNS,
        }
    })?;
    for (index, pattern) in patterns.iter().enumerate() {
        check_path(pattern).map_err(|reason| Refused::Pattern {
            index,
            pattern: shown(pattern),
            reason,
        })?;
    }
    Ok(())
}

/// The version that the request asks for; `*` stands for any.
pub fn wanted_version(request: &ExecutionRequest) -> Option<&str> {
    request.version.as_deref().filter(|wanted| *wanted != "*")
}

/// Compares the wanted version with that of the image, or else with that of the language file. `found`: the version of
/// the image with its title (`Python 3.13.5`), if there is an image that records it.
pub fn check_version(
    wanted: Option<&str>,
    language: &Language,
    found: Option<&str>,
) -> Result<(), Refused> {
    let Some(wanted) = wanted else { return Ok(()) };
    let number = found.and_then(|text| text.rsplit(' ').next());
    // 3 asks for any 3.x, and a language file that pins 3.13 may still give any 3.13.x to a request for 3.13.5.
    let fits = match (number, language.version.as_deref()) {
        (Some(number), _) => is_version(number, wanted),
        (None, Some(pinned)) => is_version(pinned, wanted) || is_version(wanted, pinned),
        (None, None) => true,
    };
    ensure(fits, || Refused::Version {
        wanted: shown(wanted),
        found: match (found, &language.version) {
            (Some(found), _) => found.to_owned(),
            (None, Some(pinned)) => language.with_version(pinned),
            (None, None) => language.name.clone(),
        },
    })
}

fn is_version(found: &str, wanted: &str) -> bool {
    let wanted = wanted.trim_end_matches(".x");
    !wanted.is_empty()
        && (found == wanted || (is_of(found, wanted) && found[wanted.len()..].starts_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_prefix_at_a_dot() {
        for (wanted, fits) in [
            ("3", true),
            ("3.13", true),
            ("3.13.5", true),
            ("3.13.x", true),
            ("3.1", false),
            ("3.13.", false),
            ("", false),
            ("4", false),
        ] {
            assert_eq!(is_version("3.13.5", wanted), fits, "{wanted}");
        }
    }
}
