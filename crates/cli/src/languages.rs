//! `languages`: lists the backend's languages.

use std::fmt::Write as _;

use cloude_protocol::api::LanguageInfo;

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::terminal::{self, Style, paint};

/// `cloude languages`.
pub async fn list(args: args::Languages) -> Result<u8, CliError> {
    let backend = Backend::new(&args.backend.url)?;
    let languages = backend.languages().await?;
    if args.json {
        terminal::json(&languages)?;
    } else {
        let text = table(&languages, terminal::stdout_colour());
        terminal::stdout(text.as_bytes())?;
    }
    Ok(0)
}

fn table(languages: &[LanguageInfo], colour: bool) -> String {
    let rows: Vec<[String; 3]> = languages
        .iter()
        .map(|language| {
            let extensions: Vec<String> = language
                .extensions
                .iter()
                .map(|extension| format!(".{extension}"))
                .collect();
            [
                language.name.clone(),
                language.aliases.join(", "),
                extensions.join(" "),
            ]
        })
        .collect();
    let header = ["LANGUAGE", "ALSO", "FILES"];
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .chain([header[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let line = |cells: [&str; 3]| {
        format!(
            "{:<2$}  {:<3$}  {4:<5$}",
            cells[0], cells[1], widths[0], widths[1], cells[2], widths[2]
        )
    };

    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}",
        paint(&format!("{}  IMAGE", line(header)), Style::Bold, colour)
    );
    for (row, language) in rows.iter().zip(languages) {
        let image = if language.image_ready {
            paint("ready", Style::Good, colour)
        } else {
            paint("not built", Style::Dim, colour)
        };
        let _ = writeln!(text, "{}  {image}", line([&row[0], &row[1], &row[2]]));
    }
    text
}

/// The language that has the file extension, in any case.
pub fn by_extension<'a>(
    languages: &'a [LanguageInfo],
    extension: &str,
) -> Option<&'a LanguageInfo> {
    languages.iter().find(|language| {
        language
            .extensions
            .iter()
            .any(|known| known.eq_ignore_ascii_case(extension))
    })
}
