//! The version of the program that an image is for: found in the image, compared with the wanted one.

use cloude_protocol::boot::ImageConfig;
use cloude_protocol::language::{Language, is_of};

use crate::store::Metadata;
use crate::tree::Tree;

/// Debian's database of installed packages (dpkg(1)), and what is read of it at the most.
const DPKG_STATUS: &str = "var/lib/dpkg/status";
const MAX_DPKG_STATUS_BYTES: u64 = 16 << 20;

/// The program that an image is for, and how its version is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The name in messages: `Python`.
    pub title: String,
    /// The version that an image has to have, or the beginning of one: `3.13`. Any if none.
    pub version: Option<String>,
    /// The environment variable in which an image of layers has its version.
    pub variable: Option<String>,
    /// The Debian package whose version it is, in an image without the variable.
    pub package: Option<String>,
}

/// An image does not have the version that is wanted: what was found where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VersionMismatch(String);

impl Program {
    /// The program of a language.
    pub fn of(language: &Language) -> Self {
        Program {
            title: language
                .title
                .clone()
                .unwrap_or_else(|| language.name.clone()),
            version: language.version.clone(),
            variable: language.image.version_variable.clone(),
            package: language.image.debian.packages.first().cloned(),
        }
    }

    /// Whether an image has the version that is wanted.
    pub fn check(&self, metadata: &Metadata) -> Result<(), VersionMismatch> {
        let Some(wanted) = &self.version else {
            return Ok(());
        };
        let (image, title) = (&metadata.source, &self.title);
        let message = match metadata.program_version.as_deref() {
            Some(found) if is_of(found, wanted) => return Ok(()),
            Some(found) => format!(
                "{image} has {title} {found}, and {title} {wanted} is wanted: name an image or a suite that has it, or \
                 set `version = \"{}\"` in language.toml",
                major_minor(found)
            ),
            None => {
                let shown = |name: &Option<String>| {
                    name.clone().unwrap_or_else(|| "(none is named)".to_owned())
                };
                format!(
                    "{image} does not record its version, and {title} {wanted} is wanted: it has neither the variable \
                     `{}` nor the Debian package `{}`; set `image.version_variable` in language.toml, or take \
                     `version` out of it",
                    shown(&self.variable),
                    shown(&self.package),
                )
            }
        };
        Err(VersionMismatch(message))
    }

    /// The version in an image of layers: the variable's, else the package's.
    pub(super) fn of_layers(&self, config: &ImageConfig, tree: &Tree) -> Option<String> {
        let variable = self.variable.as_deref();
        let named = variable.and_then(|name| of_variable(config, |it| it == name));
        named.or_else(|| of_dpkg(tree, self.package.as_deref()?))
    }

    /// The version of the package among `name_version_architecture`.
    pub(super) fn of_packages(&self, installed: &[String]) -> Option<String> {
        of_packages(self.package.as_deref()?, installed)
    }
}

/// The version of an image that is built for no program in particular. Official images name it in their environment,
/// before the versions of other things: `PYTHON_VERSION`, `NODE_VERSION`, `GOLANG_VERSION`.
pub(super) fn of_config(config: &ImageConfig) -> Option<String> {
    of_variable(config, |name| name.ends_with("_VERSION"))
}

fn of_variable(config: &ImageConfig, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut variables = config.env.iter().filter_map(|line| line.split_once('='));
    let (_, version) = variables.find(|(name, _)| wanted(name))?;
    // `jdk-25.0.1+8`
    let number = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    (!number.is_empty()).then(|| number.to_owned())
}

pub(super) fn of_packages(package: &str, installed: &[String]) -> Option<String> {
    let version = installed.iter().find_map(|installed| {
        let (name, rest) = installed.split_once('_')?;
        (name == package).then_some(rest.split_once('_')?.0)
    })?;
    Some(upstream(version).to_owned())
}

/// The version of an installed package by an image's `/var/lib/dpkg/status`.
fn of_dpkg(tree: &Tree, package: &str) -> Option<String> {
    let status = tree.read_file(DPKG_STATUS, MAX_DPKG_STATUS_BYTES)?;
    let status = String::from_utf8_lossy(&status);
    let field = |stanza: &str, name: &str| {
        let line = stanza.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    let stanza = status.split("\n\n").find(|stanza| {
        field(stanza, "Package:").as_deref() == Some(package)
            && field(stanza, "Status:").is_some_and(|status| status.ends_with(" installed"))
    })?;
    Some(upstream(&field(stanza, "Version:")?).to_owned())
}

/// The upstream part of `[epoch:]upstream[-revision]` (Debian Policy 5.6.12), without what says that Debian repacked it.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let upstream = version.rsplit_once('-').map_or(version, |(it, _)| it);
    // `2.0+really1.9` is 1.9: a version that was taken back (Debian Policy, 5.6.12.1).
    let upstream = upstream
        .rsplit_once("+really")
        .map_or(upstream, |(_, it)| it);
    let repacked = ["+dfsg", ".dfsg", "+ds"]
        .iter()
        .filter_map(|mark| upstream.find(mark))
        .min();
    &upstream[..repacked.unwrap_or(upstream.len())]
}

/// `3.13` of `3.13.5`.
fn major_minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &[&str]) -> ImageConfig {
        ImageConfig {
            env: env.iter().map(|&line| line.to_owned()).collect(),
            ..ImageConfig::default()
        }
    }

    fn python(version: Option<&str>) -> Program {
        Program {
            title: "Python".to_owned(),
            version: version.map(str::to_owned),
            variable: Some("PYTHON_VERSION".to_owned()),
            package: Some("python3".to_owned()),
        }
    }

    fn image(found: Option<&str>) -> Metadata {
        Metadata {
            program_version: found.map(str::to_owned),
            ..Metadata::for_test("debian:trixie,python3")
        }
    }

    #[test]
    fn an_official_image_has_it_in_its_environment() {
        let node = config(&["PATH=/bin", "NODE_VERSION=20.19.0", "YARN_VERSION=1.22.22"]);
        assert_eq!(of_config(&node).as_deref(), Some("20.19.0"));
        assert_eq!(of_config(&ImageConfig::default()), None);
        let java = config(&["JAVA_VERSION=jdk-25.0.1+8"]);
        assert_eq!(of_config(&java).as_deref(), Some("25.0.1+8"));
    }

    #[test]
    fn a_package_has_it_between_epoch_and_revision() {
        let of = |package: &str, installed: &str| of_packages(package, &[installed.into()]);
        assert_eq!(of("gcc", "gcc_4:14.2.0-1_amd64").as_deref(), Some("14.2.0"));
        assert_eq!(of("a", "a_1.19~1_all").as_deref(), Some("1.19~1"));
        assert_eq!(
            of("nodejs", "nodejs_20.19.2+dfsg-1+deb13u3_amd64").as_deref(),
            Some("20.19.2")
        );
        assert_eq!(
            of("jdk", "jdk_25.0.5+8-1~deb13u1_amd64").as_deref(),
            Some("25.0.5+8")
        );
        assert_eq!(of("gcc", "gcc-14_14.2.0-19_amd64"), None);
        assert_eq!(
            of("elixir", "elixir_1.18.3.dfsg-1_amd64").as_deref(),
            Some("1.18.3")
        );
        assert_eq!(
            of("guile", "guile_3.0.10+really3.0.9-4_amd64").as_deref(),
            Some("3.0.9")
        );
    }

    #[test]
    fn another_version_says_which_was_found_and_what_to_do() {
        assert_eq!(python(Some("3.13")).check(&image(Some("3.13.5"))), Ok(()));
        assert_eq!(python(None).check(&image(None)), Ok(()));
        let error = python(Some("3.14"))
            .check(&image(Some("3.13.5")))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "debian:trixie,python3 has Python 3.13.5, and Python 3.14 is wanted: name an image or a suite that has it, \
             or set `version = \"3.13\"` in language.toml"
        );
    }

    #[test]
    fn an_unknown_version_says_where_it_was_looked_for() {
        let error = python(Some("3.14"))
            .check(&image(None))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`PYTHON_VERSION`") && error.contains("`python3`"),
            "{error}"
        );
    }
}
