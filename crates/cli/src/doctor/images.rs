//! Checks of the language files and of each language's image.

use std::path::Path;

use cloude_protocol::api::{Installation, LanguageInfo};
use cloude_protocol::languages;

use super::check::{Check, State};
use crate::paths;

/// The checks of [`local`], from the backend's own report.
pub fn remote(installation: &Installation, languages: &[LanguageInfo]) -> Vec<Check> {
    let found = format!("{} in {}", languages.len(), installation.languages);
    let images = languages.iter().map(|language| {
        let found = language.image_ready.then(|| installation.images.clone());
        image(&language.name, found)
    });
    std::iter::once(Check::ok("languages", found))
        .chain(images)
        .collect()
}

/// One check for the languages of this machine, and one for each language's image.
pub fn local() -> Vec<Check> {
    let folder = paths::languages();
    let broken = |found: String| {
        let fix = "correct it, or name another folder with LANGUAGES_CONFIG_PATH";
        Check::broken("languages", found, fix)
    };
    let names = match languages::names(&folder) {
        Ok(names) if names.is_empty() => {
            return vec![broken(format!("none in {}", folder.display()))];
        }
        Ok(names) => names,
        Err(error) => return vec![broken(error.to_string())],
    };
    let images = paths::images();
    let read = names.iter().map(|name| languages::load(&folder, name));
    let checks: Vec<Check> = read
        .map(|language| match language {
            Ok(language) => local_image(&images, &language.name),
            // A TOML parser's message spans lines.
            Err(error) => broken(error.to_string().replace('\n', " ")),
        })
        .collect();
    let bad = checks.iter().filter(|check| check.state == State::Broken);
    let good = names.len() - bad.count();
    let found = format!("{good} in {}", folder.display());
    let all = (good > 0).then(|| Check::ok("languages", found));
    all.into_iter().chain(checks).collect()
}

fn local_image(images: &Path, language: &str) -> Check {
    let path = images.join(format!("{language}.cpio"));
    let size = path.metadata().ok().map(|metadata| metadata.len());
    let found = size.map(|size| format!("{} ({} MiB)", path.display(), size.div_ceil(1 << 20)));
    image(language, found)
}

fn image(language: &str, found: Option<String>) -> Check {
    let name = format!("image: {language}");
    match found {
        Some(found) => Check::ok(&name, found),
        None => Check::warning(
            &name,
            "not built",
            format!("cloude image build --language {language}"),
        ),
    }
}
