//! Finds language files and their sources.

use std::path::{Path, PathBuf};

use cloude_initramfs_builder::source::{LanguageSources, Source};
use cloude_protocol::language::Language;
use cloude_protocol::{languages, paths};

use super::Failure;
use super::args::SourceChoice;

/// The directory of language files: the option's, or the default of `clouded`.
pub fn dir(option: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = option {
        return Ok(dir.to_owned());
    }
    let dir = paths::languages(rustix::process::geteuid().is_root());
    if dir.is_dir() {
        return Ok(dir);
    }
    Err(Failure::new(format!(
        "no languages in `{}`: name their directory with --languages-dir or LANGUAGES_CONFIG_PATH",
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

/// The source of a language's image, and the fallback for an unreachable registry.
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
