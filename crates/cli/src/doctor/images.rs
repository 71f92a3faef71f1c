//! Checks of the language files and of each language's image.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cloude_protocol::api::{IMAGE_MAX_AGE_DAYS, Installation, LanguageInfo};
use cloude_protocol::language::{Language, is_of};
use cloude_protocol::languages;
use cloude_protocol::paths::variable;
use serde::Deserialize;

use super::check::{Check, State};
use crate::paths;

/// The checks of [`local`], from the backend's report.
pub fn remote(installation: &Installation, languages: &[LanguageInfo]) -> Vec<Check> {
    let found = format!("{} in {}", languages.len(), installation.languages);
    let images = languages.iter().map(|language| {
        let version = language.version.as_deref().unwrap_or(&installation.images);
        let found = language.image_ready.then_some(version);
        let age_s = language.image_age_s.unwrap_or(0);
        image(
            &language.name,
            found,
            age_s,
            installation.image_max_age_days,
        )
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
            Ok(language) => local_image(&images, &language),
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

/// The keys of an image's record, `NAME.json`, that the check needs (docs/images.md).
#[derive(Default, Deserialize)]
struct Record {
    program_version: Option<String>,
    checked_at: u64,
}

fn local_image(images: &Path, language: &Language) -> Check {
    let name = &language.name;
    let limit = max_age_days();
    if !images.join(format!("{name}.cpio")).is_file() {
        return image(name, None, 0, limit);
    }
    let record = std::fs::read(images.join(format!("{name}.json"))).ok();
    let record: Option<Record> = record.and_then(|json| serde_json::from_slice(&json).ok());
    let Some(record) = record else {
        let found = "its record is not one of this version";
        return Check::warning(&check_name(name), found, build(name));
    };
    let found = record.program_version.as_ref().map_or_else(
        || images.display().to_string(),
        |version| language.with_version(version),
    );
    if let (Some(wanted), Some(has)) = (&language.version, &record.program_version)
        && !is_of(has, wanted)
    {
        let found = format!("{found}, and {} is wanted", language.with_version(wanted));
        return Check::warning(&check_name(name), found, build(name));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age_s = now.map_or(0, |now| now.as_secs().saturating_sub(record.checked_at));
    image(name, Some(&found), age_s, limit)
}

/// `CLOUDE_IMAGES_MAX_AGE_DAYS`, as `clouded` reads it, else the default.
fn max_age_days() -> u64 {
    let set =
        variable("CLOUDE_IMAGES_MAX_AGE_DAYS").and_then(|days| days.to_str()?.trim().parse().ok());
    set.unwrap_or(IMAGE_MAX_AGE_DAYS)
}

fn check_name(language: &str) -> String {
    format!("image: {language}")
}

fn build(language: &str) -> String {
    format!("cloude image build --language {language}")
}

/// An image: `found` is its version, or where it is; `limit` is the age in days from which on it is old.
fn image(language: &str, found: Option<&str>, age_s: u64, limit: u64) -> Check {
    let name = check_name(language);
    let days = age_s / 86_400;
    match found {
        None => Check::warning(&name, "not built", build(language)),
        Some(found) if limit > 0 && days >= limit => {
            let found = format!("{found}, last compared with its source {days} days ago");
            Check::warning(&name, found, format!("cloude image update {language}"))
        }
        Some(found) => Check::ok(&name, found),
    }
}
