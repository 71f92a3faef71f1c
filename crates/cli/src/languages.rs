//! `languages`: lists the backend's languages.

use std::fmt::Write as _;

use cloude_protocol::api::LanguageInfo;

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::terminal::{self, Style, paint};

/// `cloude languages`.
pub async fn list(args: args::Languages, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
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
    let rows: Vec<[String; 5]> = languages
        .iter()
        .map(|language| {
            let extensions = language.extensions.iter();
            let extensions: Vec<String> = extensions.map(|it| format!(".{it}")).collect();
            let image = match &language.image_digest {
                Some(digest) => short(digest).to_owned(),
                None if language.image_ready => "built".to_owned(),
                None => "not built".to_owned(),
            };
            [
                language.name.clone(),
                language.version.clone().unwrap_or_else(|| "-".to_owned()),
                language.aliases.join(", "),
                extensions.join(" "),
                image,
            ]
        })
        .collect();
    let header = ["LANGUAGE", "VERSION", "ALSO", "FILES", "IMAGE"];
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |cells: [&str; 4]| {
        let padded = cells.iter().zip(widths);
        padded.fold(String::new(), |mut line, (cell, width)| {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
            line
        })
    };

    let [a, b, c, d, last] = header;
    let mut text = paint(
        &format!("{}{last}", line([a, b, c, d])),
        Style::Bold,
        colour,
    );
    text.push('\n');
    for (row, language) in rows.iter().zip(languages) {
        let [a, b, c, d, image] = row;
        let style = if language.image_ready {
            Style::Good
        } else {
            Style::Dim
        };
        let _ = writeln!(
            text,
            "{}{}",
            line([a, b, c, d]),
            paint(image, style, colour)
        );
    }
    text
}

/// The first 12 digits of a digest, as `docker` shows it.
fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
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
