//! References to images in registries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `REGISTRY/REPOSITORY[:TAG][@sha256:HEX]`. Parsing completes short names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Reference {
    /// Host with optional port. `docker.io` for a short name.
    pub registry: String,
    /// Such as `library/python`.
    pub repository: String,
    /// None only if there is a digest.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits. Takes precedence over the tag.
    pub digest: Option<String>,
}

/// A malformed reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference `{reference}`: {problem}")]
pub struct ReferenceError {
    reference: String,
    problem: &'static str,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| ReferenceError {
            reference: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_sha256(digest)) {
        return Err("the digest must be sha256: and 64 lower-case hexadecimal digits");
    }
    // A colon after the last slash starts the tag; one before it starts the port.
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag has 1 to 128 letters, digits, `_`, `.` and `-`");
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
        _ => ("docker.io", name.to_owned()),
    };
    let registry = if registry == "index.docker.io" {
        "docker.io"
    } else {
        registry
    };
    let repository = match registry {
        "docker.io" if !path.contains('/') => format!("library/{path}"),
        _ => path,
    };
    if !is_repository(&repository) {
        return Err(
            "a repository has lower-case letters and digits, separated by `/`, `.`, `_` or `-`",
        );
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest"),
        (tag, _) => tag,
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// Docker's rule: the first component is a host if it has a dot or a colon, or is `localhost`.
fn is_host(first: &str) -> bool {
    (first.contains(['.', ':']) || first == "localhost")
        && first.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && first
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
}

/// OCI distribution specification, "Pulling manifests".
fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_repository(repository: &str) -> bool {
    repository.len() <= 255
        && repository.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
                })
        })
}

/// True for `sha256:` and 64 lower-case hexadecimal digits. Digests become file names and parts of URLs.
pub(crate) fn is_sha256(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl Reference {
    /// The name of the manifest in the registry: the digest, or else the tag.
    pub fn manifest_name(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// True if it has a digest and thus always names the same image.
    pub fn is_pinned(&self) -> bool {
        self.digest.is_some()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest
            .as_ref()
            .map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (short, whole) in [
            ("python", "docker.io/library/python:latest"),
            ("python:3.13-slim", "docker.io/library/python:3.13-slim"),
            ("user/image", "docker.io/user/image:latest"),
            (
                "index.docker.io/library/node:22",
                "docker.io/library/node:22",
            ),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ] {
            assert_eq!(short.parse::<Reference>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference: Reference = format!("r.example/a@{digest}").parse().unwrap();
        assert_eq!(reference.tag, None);
        assert_eq!(reference.manifest_name(), digest);
        let both: Reference = format!("r.example/a:v@{digest}").parse().unwrap();
        assert_eq!(both.manifest_name(), digest);
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "",
            "UPPER",
            "a//b",
            "a:",
            "a: b",
            "../a",
            "a/..",
            "r.example/",
            "a@sha256:12",
            "a@md5:aaaa",
            "a:-x",
            "-a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
