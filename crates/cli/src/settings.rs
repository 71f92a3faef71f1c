//! The client's configuration: each value from a command-line option, else an environment variable, else the configuration
//! file, else a default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloude_protocol::paths;
use serde::Deserialize;

use crate::args;
use crate::error::UsageError;
use crate::quantity;

/// `retry_for` unless something else is configured.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command-line option.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// None of these.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Environment(name) => f.write_str(name),
            Origin::File(path) => path.display().fmt(f),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// An API key, or the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    Text(String),
    File(PathBuf),
}

/// All values.
pub struct Settings {
    /// The backend's URL.
    pub backend: Setting<String>,
    pub key: Setting<Option<Key>>,
    /// A file with certificates in PEM format.
    pub ca: Setting<Option<PathBuf>>,
    /// For how long requests to a busy backend are repeated.
    pub retry_for: Setting<Duration>,
    /// The path of the configuration file, and true if it exists.
    pub file: Option<(PathBuf, bool)>,
}

/// The configuration file. Relative paths in it are relative to its folder.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    backend: Option<String>,
    key_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    retry_for: Option<String>,
}

impl Settings {
    /// Reads the environment and the configuration file. Fails if one of them is malformed.
    pub fn load(options: &args::Backend) -> Result<Self, UsageError> {
        let path = path();
        let (file, exists) = match &path {
            Some(path) => read(path)?,
            None => (File::default(), false),
        };
        let in_file = || Origin::File(path.clone().unwrap_or_default());
        let folder = path.as_deref().and_then(Path::parent);
        let absolute = |path: PathBuf| folder.map_or_else(|| path.clone(), |dir| dir.join(&path));
        let retry_for = match variable("CLOUDE_RETRY_FOR")? {
            Some(text) => Some(time(&text, &Origin::Environment("CLOUDE_RETRY_FOR"))?),
            None => None,
        };
        let file_retry_for = match file.retry_for {
            Some(text) => Some(time(&text, &in_file())?),
            None => None,
        };
        let key_options = [
            (
                options.token.clone().map(Key::Text),
                Origin::Flag("--token"),
            ),
            (
                options.key_file.clone().map(Key::File),
                Origin::Flag("--key-file"),
            ),
        ];
        Ok(Settings {
            backend: first(
                [
                    (options.url.clone(), Origin::Flag("--backend")),
                    (
                        variable("CLOUDE_BACKEND")?,
                        Origin::Environment("CLOUDE_BACKEND"),
                    ),
                    (file.backend, in_file()),
                ],
                args::default_backend().to_owned(),
            ),
            key: optional(key_options.into_iter().chain([
                (
                    variable("CLOUDE_API_KEY")?.map(Key::Text),
                    Origin::Environment("CLOUDE_API_KEY"),
                ),
                (
                    file.key_file.map(|path| Key::File(absolute(path))),
                    in_file(),
                ),
            ])),
            ca: optional([
                (options.ca.clone(), Origin::Flag("--ca")),
                (
                    paths::variable("CLOUDE_CA").map(PathBuf::from),
                    Origin::Environment("CLOUDE_CA"),
                ),
                (file.ca.map(absolute), in_file()),
            ]),
            retry_for: first(
                [
                    (options.retry_for, Origin::Flag("--retry-for")),
                    (retry_for, Origin::Environment("CLOUDE_RETRY_FOR")),
                    (file_retry_for, in_file()),
                ],
                RETRY_FOR,
            ),
            file: path.map(|path| (path, exists)),
        })
    }
}

/// The first value that is present, else the default.
fn first<T>(values: impl IntoIterator<Item = (Option<T>, Origin)>, default: T) -> Setting<T> {
    for (value, origin) in values {
        if let Some(value) = value {
            return Setting { value, origin };
        }
    }
    Setting {
        value: default,
        origin: Origin::Default,
    }
}

fn optional<T>(values: impl IntoIterator<Item = (Option<T>, Origin)>) -> Setting<Option<T>> {
    let values = values.into_iter();
    first(
        values.map(|(value, origin)| (value.map(Some), origin)),
        None,
    )
}

/// `$XDG_CONFIG_HOME/cloude/config.toml`, else `~/.config/cloude/config.toml`. A relative `XDG_CONFIG_HOME` is ignored, as
/// the XDG Base Directory Specification demands.
fn path() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(paths::variable(name)?);
        path.is_absolute().then_some(path)
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|folder| folder.join("cloude/config.toml"))
}

/// The file, and whether it exists.
fn read(path: &Path) -> Result<(File, bool), UsageError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((File::default(), false));
        }
        Err(error) => {
            return Err(UsageError::ReadFile {
                path: path.to_owned(),
                error,
            });
        }
    };
    let invalid = |error: toml::de::Error| {
        let line = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or_default();
            before.matches('\n').count() + 1
        });
        UsageError::ConfigFile {
            path: path.to_owned(),
            line: line.unwrap_or(1),
            reason: error.message().replace('\n', " "),
        }
    };
    Ok((toml::from_str(&text).map_err(invalid)?, true))
}

/// An environment variable; none if it is empty.
fn variable(name: &'static str) -> Result<Option<String>, UsageError> {
    let value = paths::variable(name).map(|value| value.into_string());
    value.transpose().map_err(|_| UsageError::Variable { name })
}

fn time(text: &str, origin: &Origin) -> Result<Duration, UsageError> {
    quantity::duration_or_zero(text).map_err(|error| UsageError::RetryFor {
        text: text.to_owned(),
        origin: origin.to_string(),
        error,
    })
}
