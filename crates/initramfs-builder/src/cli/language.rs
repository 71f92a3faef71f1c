//! Languages as sources of images.

use std::fs;
use std::path::{Path, PathBuf};

use cloude_initramfs_builder::source::{LanguageSources, Source};
use cloude_protocol::language::Language;
use cloude_protocol::paths;

use super::Failure;
use super::args::SourceChoice;

/// The folder of language files: as told, or where `clouded` looks.
pub fn dir(told: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = told {
        return Ok(dir.to_owned());
    }
    let dir = paths::languages(rustix::process::geteuid().is_root());
    if dir.is_dir() {
        return Ok(dir);
    }
    Err(Failure::new(format!(
        "there are no language files in `{}`; name their folder with --languages-dir or LANGUAGES_CONFIG_PATH",
        dir.display()
    )))
}

/// The names of all languages.
pub fn all(dir: &Path) -> Result<Vec<String>, Failure> {
    let at = |error| Failure::new(format!("reading `{}`: {error}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a language by its name or one of its aliases.
pub fn load(dir: &Path, name: &str) -> Result<Language, Failure> {
    let names = all(dir)?;
    let wanted = name.to_lowercase();
    if names.contains(&wanted) {
        return read(dir, &wanted);
    }
    for candidate in &names {
        let language = read(dir, candidate)?;
        if language.aliases.contains(&wanted) {
            return Ok(language);
        }
    }
    Err(Failure::new(format!(
        "there is no language `{name}`; there are {}",
        names.join(", ")
    )))
}

fn read(dir: &Path, name: &str) -> Result<Language, Failure> {
    let path = dir.join(format!("{name}.toml"));
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::new(format!("reading `{}`: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Failure::new(format!("`{}`: {error}", path.display())))
}

/// Where a language's image comes from, and where if that is not reached.
pub fn sources(
    language: &Language,
    dir: &Path,
    choice: SourceChoice,
) -> Result<(Source, Option<Source>), Failure> {
    let sources = LanguageSources::new(&language.image, dir)
        .map_err(|error| Failure::new(format!("the language `{}`: {error}", language.name)))?;
    Ok(match choice {
        SourceChoice::Auto => sources.with_fallback(),
        SourceChoice::Image => (sources.reference, None),
        SourceChoice::Debian => (sources.packages, None),
    })
}
