//! The host's own apt sources for a suite: its mirror is near, and its security updates are wanted.

use std::fs;
use std::path::{Path, PathBuf};

/// One-line sources (`sources.list(5)`) of the host for the suite, its updates and its security
/// updates. Empty where the host has none.
pub(super) fn of_host(suite: &str) -> Vec<String> {
    let apt = Path::new("/etc/apt");
    let mut files = vec![apt.join("sources.list")];
    let mut more: Vec<PathBuf> = fs::read_dir(apt.join("sources.list.d"))
        .map(|dir| dir.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    more.sort();
    files.append(&mut more);

    let mut lines = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => lines.extend(text.lines().filter_map(|line| one_line(line, suite))),
            Some("sources") => lines.extend(stanzas(&text, suite)),
            _ => {}
        }
    }
    lines.dedup();
    // Without the suite itself its updates are of no use.
    if lines
        .iter()
        .any(|line| line.split(' ').any(|word| word == suite))
    {
        lines
    } else {
        Vec::new()
    }
}

fn is_of(candidate: &str, suite: &str) -> bool {
    candidate == suite
        || candidate
            .strip_prefix(suite)
            .is_some_and(|rest| matches!(rest, "-updates" | "-security" | "/updates"))
}

/// A line of a `.list` file, with its component `main` alone.
fn one_line(line: &str, suite: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, candidate) = (words.next()?, words.next()?);
    if !is_of(candidate, suite) || !words.any(|component| component == "main") {
        return None;
    }
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="));
    Some(line_of(uri, candidate, signed_by))
}

/// Stanzas of a `.sources` file (deb822).
fn stanzas(text: &str, suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
        let enabled = !field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let main = words("Components").any(|component| component == "main");
        if !enabled || !main || !words("Types").any(|kind| kind == "deb") {
            continue;
        }
        let signed_by = field("Signed-By").filter(|value| value.starts_with('/'));
        for uri in words("URIs") {
            for candidate in words("Suites").filter(|candidate| is_of(candidate, suite)) {
                lines.push(line_of(uri, candidate, signed_by));
            }
        }
    }
    lines
}

fn line_of(uri: &str, suite: &str, signed_by: Option<&str>) -> String {
    match signed_by {
        Some(keyring) => format!("deb [signed-by={keyring}] {uri} {suite} main"),
        None => format!("deb {uri} {suite} main"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_gives_the_suite_and_its_updates() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://m.example/debian\n\
                    Suites: bookworm bookworm-updates bookworm-backports\nComponents: main contrib\n\
                    Signed-By: /k.gpg\n\nTypes: deb\nURIs: http://other/\nSuites: nodistro\nComponents: main\n";
        assert_eq!(
            stanzas(text, "bookworm"),
            [
                "deb [signed-by=/k.gpg] http://m.example/debian bookworm main",
                "deb [signed-by=/k.gpg] http://m.example/debian bookworm-updates main",
            ]
        );
    }

    #[test]
    fn a_disabled_stanza_gives_none() {
        let text = "Types: deb\nEnabled: no\nURIs: http://m/\nSuites: bookworm\nComponents: main\n";
        assert!(stanzas(text, "bookworm").is_empty());
    }

    #[test]
    fn a_line_keeps_its_keyring_and_only_main() {
        assert_eq!(
            one_line(
                "deb [arch=amd64 signed-by=/k.gpg] http://m/ bookworm main contrib",
                "bookworm"
            ),
            Some("deb [signed-by=/k.gpg] http://m/ bookworm main".to_owned())
        );
        assert_eq!(one_line("deb http://m/ bookworm contrib", "bookworm"), None);
        assert_eq!(one_line("# deb http://m/ bookworm main", "bookworm"), None);
    }
}
