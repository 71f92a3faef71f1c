//! Languages as sources of images.

use std::path::{Path, PathBuf};

use cloude_initramfs_builder::source::{LanguageSources, Source};
use cloude_protocol::language::Language;
use cloude_protocol::{languages, paths};

use super::Failure;
use super::args::SourceChoice;

/// The folder of languages: the given one, or the one that `clouded` takes by default.
pub fn dir(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = given {
        return Ok(dir.to_owned());
    }
    let dir = paths::languages(rustix::process::geteuid().is_root());
    if dir.is_dir() {
        return Ok(dir);
    }
    Err(Failure::new(format!(
        "there are no languages in `{}`; name their folder with --languages-dir or LANGUAGES_CONFIG_PATH",
        dir.display()
    )))
}

/// The names of all languages.
pub fn all(dir: &Path) -> Result<Vec<String>, Failure> {
    languages::names(dir).map_err(Failure::new)
}

/// Reads a language by its name or one of its aliases.
pub fn load(dir: &Path, name: &str) -> Result<Language, Failure> {
    languages::find(dir, name).map_err(Failure::new)
}

/// Where a language's image comes from, and where if that is not reached.
pub fn sources(
    language: &Language,
    dir: &Path,
    choice: SourceChoice,
) -> Result<(Source, Option<Source>), Failure> {
    let sources = LanguageSources::new(language, &dir.join(&language.name))
        .map_err(|error| Failure::new(format!("the language `{}`: {error}", language.name)))?;
    Ok(match choice {
        SourceChoice::Auto => sources.with_fallback(),
        SourceChoice::Image => (sources.reference, None),
        SourceChoice::Debian => (sources.packages, None),
    })
}
