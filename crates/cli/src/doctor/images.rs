//! Checks of the language files and of each language's image.

use std::path::{Path, PathBuf};

use cloude_protocol::api::{Installation, LanguageInfo};
use cloude_protocol::language::Language;

use super::check::Check;
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

/// One check for the language files of this machine, and one for each language's image.
pub fn local() -> Vec<Check> {
    let folder = paths::languages();
    let files = match files(&folder) {
        Ok(files) => files,
        Err(error) => {
            return vec![Check::broken(
                "languages",
                format!("{}: {error}", folder.display()),
                "correct LANGUAGES_CONFIG_PATH",
            )];
        }
    };
    let read: Vec<Result<Language, Check>> = files.iter().map(|path| language(path)).collect();
    let good = read.iter().filter(|language| language.is_ok()).count();
    let mut checks = Vec::new();
    if good == 0 {
        checks.push(Check::broken(
            "languages",
            format!("none in {}", folder.display()),
            "name the folder with LANGUAGES_CONFIG_PATH",
        ));
    } else {
        checks.push(Check::ok(
            "languages",
            format!("{good} in {}", folder.display()),
        ));
    }
    let images = paths::images();
    checks.extend(read.into_iter().map(|language| match language {
        Ok(language) => local_image(&images, &language.name),
        Err(check) => check,
    }));
    checks
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn language(path: &Path) -> Result<Language, Check> {
    let bad = |found: String| {
        Check::broken(
            "languages",
            format!("{}: {found}", path.display()),
            "correct the file",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    // The message of a parse error spans lines; the first one has the cause.
    toml::from_str(&text).map_err(|error| {
        bad(error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned())
    })
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
