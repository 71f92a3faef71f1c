//! `config`: the values of this client's configuration, each with its origin.

use serde::Serialize;

use crate::args;
use crate::error::CliError;
use crate::settings::{Key, Setting, Settings};
use crate::table::table;
use crate::terminal;

/// A value as it is shown.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    value: Option<String>,
    origin: String,
}

/// `cloude config`.
pub fn show(args: &args::Config, options: &args::Backend) -> Result<u8, CliError> {
    let settings = Settings::load(options)?;
    let rows = rows(&settings);
    if args.json {
        terminal::json(&rows)?;
        return Ok(0);
    }
    let cells: Vec<[String; 3]> = rows
        .into_iter()
        .map(|row| {
            let value = row.value.unwrap_or_else(|| "-".to_owned());
            [row.name.to_owned(), value, row.origin]
        })
        .collect();
    let mut text = table(
        ["NAME", "VALUE", "ORIGIN"],
        &cells,
        terminal::stdout_colour(),
    );
    if let Some((path, exists)) = &settings.file {
        let state = if *exists { "" } else { " (no such file)" };
        text.push_str(&format!("file: {}{state}\n", path.display()));
    }
    terminal::stdout(text.as_bytes())?;
    Ok(0)
}

fn rows(settings: &Settings) -> [Row; 4] {
    let row = |name, value, setting: &dyn std::fmt::Display| Row {
        name,
        value,
        origin: setting.to_string(),
    };
    let Settings {
        backend,
        key,
        ca,
        retry_for,
        ..
    } = settings;
    [
        row("backend", Some(backend.value.clone()), &backend.origin),
        row("key", shown(key), &key.origin),
        row(
            "ca",
            ca.value.as_ref().map(|path| path.display().to_string()),
            &ca.origin,
        ),
        row(
            "retry_for",
            Some(humantime::format_duration(retry_for.value).to_string()),
            &retry_for.origin,
        ),
    ]
}

/// A key's public part, or the path of its file.
fn shown(key: &Setting<Option<Key>>) -> Option<String> {
    let key = key.value.as_ref()?;
    Some(match key {
        Key::File(path) => format!("in {}", path.display()),
        Key::Text(text) => {
            let mut parts = text.trim().split('_');
            match (parts.next(), parts.next(), parts.next()) {
                (Some("cloude"), Some(id), Some(_)) => format!("cloude_{id}_…"),
                _ => "not an API key".to_owned(),
            }
        }
    })
}
