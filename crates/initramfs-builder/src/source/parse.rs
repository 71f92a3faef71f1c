//! Parses sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Packages, Source, SourceError, archive};

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        Source::parse_in(text, Path::new(""))
    }
}

impl Source {
    /// Parses a source. A relative path is relative to `dir`.
    pub fn parse_in(text: &str, dir: &Path) -> Result<Self, SourceError> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = split_tag(dir, rest);
            return Ok(Source::Oci { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, tag) = split_tag(dir, rest);
            return Ok(Source::DockerArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("debian:")
            && is_suite(rest)
        {
            return debian(rest).map(Source::Debian);
        }
        if text.starts_with(['/', '.', '~']) || text.ends_with(".tar") {
            return detect(&dir.join(text));
        }
        if text.is_empty() {
            return Err(SourceError::Unknown(String::new()));
        }
        Ok(Source::Registry(text.parse()?))
    }
}

impl Packages {
    /// Checks the names: they become arguments of mmdebstrap.
    pub fn new(
        suite: &str,
        packages: &[String],
        env: BTreeMap<String, String>,
    ) -> Result<Self, SourceError> {
        for name in packages.iter().map(String::as_str).chain([suite]) {
            if !is_debian_name(name) {
                return Err(SourceError::DebianName(name.to_owned()));
            }
        }
        Ok(Packages {
            suite: suite.to_owned(),
            packages: packages.to_vec(),
            env,
        })
    }
}

/// Distinguishes `debian:SUITE` from the image `debian` with a tag such as `12-slim` or `bookworm-slim`: the names of
/// all suites are one word.
fn is_suite(rest: &str) -> bool {
    let suite = rest.split(',').next().unwrap_or_default();
    !suite.is_empty() && suite.bytes().all(|byte| byte.is_ascii_lowercase()) && suite != "latest"
}

fn debian(rest: &str) -> Result<Packages, SourceError> {
    let mut names = rest.split(',');
    let suite = names.next().unwrap_or_default();
    let packages: Vec<String> = names.map(str::to_owned).collect();
    Packages::new(suite, &packages, BTreeMap::new())
}

/// Debian Policy 5.6.1: lower case letters, digits, plus, minus and period; a colon goes before an
/// architecture, an equals sign and a tilde belong to a version.
fn is_debian_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.:=~".contains(&byte))
}

/// Splits `PATH:TAG`. A path that exists is not split.
fn split_tag(dir: &Path, text: &str) -> (PathBuf, Option<String>) {
    if !dir.join(text).exists()
        && let Some((path, tag)) = split_at_tag(dir, text)
    {
        return (dir.join(path), Some(tag.to_owned()));
    }
    (dir.join(text), None)
}

/// Splits at the first colon after a path that exists, or else at the first colon.
fn split_at_tag<'a>(dir: &Path, text: &'a str) -> Option<(&'a str, &'a str)> {
    let colons = || {
        text.match_indices(':')
            .map(|(at, _)| at)
            .filter(|at| *at > 0)
    };
    let at = colons()
        .find(|at| dir.join(&text[..*at]).exists())
        .or_else(|| colons().next())?;
    Some((&text[..at], &text[at + 1..]))
}

fn detect(path: &Path) -> Result<Source, SourceError> {
    match archive::detect(path) {
        Some(archive::Kind::Oci) => Ok(Source::Oci {
            path: path.to_owned(),
            tag: None,
        }),
        Some(archive::Kind::Docker) => Ok(Source::DockerArchive {
            path: path.to_owned(),
            tag: None,
        }),
        None => Err(SourceError::NoImage(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_suite_differs_from_the_image_of_that_name() {
        assert!(matches!("debian:bookworm".parse(), Ok(Source::Debian(_))));
        assert!(matches!(
            "debian:bookworm,python3,g++".parse(),
            Ok(Source::Debian(_))
        ));
        assert!(matches!("debian:12".parse(), Ok(Source::Registry(_))));
        assert!(matches!(
            "debian:bookworm-slim".parse(),
            Ok(Source::Registry(_))
        ));
        assert!(matches!("debian:latest".parse(), Ok(Source::Registry(_))));
    }

    #[test]
    fn a_package_that_is_an_option_is_refused() {
        let name = "--aptopt".to_owned();
        assert_eq!(
            Packages::new("bookworm", std::slice::from_ref(&name), BTreeMap::new()),
            Err(SourceError::DebianName(name))
        );
        assert!("debian:bookworm,a b".parse::<Source>().is_err());
    }

    #[test]
    fn a_local_image_may_have_a_tag() {
        assert_eq!(
            "oci:some/layout:v1".parse(),
            Ok(Source::Oci {
                path: "some/layout".into(),
                tag: Some("v1".into())
            })
        );
        assert_eq!(
            "docker-archive:a.tar:name:tag".parse(),
            Ok(Source::DockerArchive {
                path: "a.tar".into(),
                tag: Some("name:tag".into())
            })
        );
    }

    #[test]
    fn an_existing_path_with_a_colon_is_not_split() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("with:colon");
        std::fs::create_dir(&path).unwrap();
        let source = format!("oci:{}", path.display()).parse();
        assert_eq!(source, Ok(Source::Oci { path, tag: None }));
    }

    #[test]
    fn the_displayed_form_parses_to_the_same_source() {
        for text in [
            "docker.io/library/python:3.13",
            "debian:bookworm,gcc",
            "oci:/none:v",
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            assert_eq!(source.to_string().parse(), Ok(source));
        }
    }

    #[test]
    fn a_path_without_an_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().display().to_string();
        assert_eq!(
            text.parse::<Source>(),
            Err(SourceError::NoImage(text.into()))
        );
    }
}
