//! `template`: lists, builds and removes the saved VMs that executions are forked from.

use std::fmt::Write as _;

use cloude_protocol::api::{TemplateInfo, TemplateRequest, TemplateState};

use crate::args::{self, TemplateCommand};
use crate::client::Backend;
use crate::error::{CliError, UsageError};
use crate::terminal::{self, Style, paint};

/// Digits of an id that the table shows.
const SHOWN_DIGITS: usize = 12;
/// Digits of a whole id, a SHA-256.
const ID_DIGITS: usize = 64;

/// `cloude template`.
pub async fn template(args: args::Template, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
    match args.command {
        TemplateCommand::Ls { json } => {
            let list: Vec<TemplateInfo> = backend.get("v1/templates").await?;
            print(&list, json)
        }
        TemplateCommand::Build(build) => self::build(build, &backend).await,
        TemplateCommand::Rm(rm) => remove(rm, &backend).await,
    }
}

async fn build(args: args::TemplateBuild, backend: &Backend) -> Result<u8, CliError> {
    let mut built = Vec::new();
    for language in args.languages {
        let request = TemplateRequest {
            language,
            vcpus: args.vcpus,
            memory_mib: args.memory,
            network: args.network,
        };
        terminal::show_spinner("building the template");
        let info: Result<TemplateInfo, CliError> = backend.post("v1/templates", &request).await;
        terminal::clear_spinner();
        built.push(info?);
    }
    print(&built, args.json)
}

async fn remove(args: args::TemplateRm, backend: &Backend) -> Result<u8, CliError> {
    let list: Vec<TemplateInfo> = backend.get("v1/templates").await?;
    let ids: Vec<String> = if args.all {
        // The backend refuses to remove a template that is being built.
        list.into_iter()
            .filter(|info| info.state != TemplateState::Building)
            .map(|info| info.id)
            .collect()
    } else {
        let ids = args.ids.iter().map(|id| whole_id(id, &list));
        ids.collect::<Result<_, UsageError>>()?
    };
    for id in ids {
        backend.delete(&format!("v1/templates/{id}")).await?;
        terminal::stdout(format!("{id}\n").as_bytes())?;
    }
    Ok(0)
}

/// The one id that starts with `prefix`. A whole id is not looked up: the template may be stored on the
/// server's disk without being loaded, and is then not in the list.
fn whole_id(prefix: &str, list: &[TemplateInfo]) -> Result<String, UsageError> {
    let hexadecimal = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    if hexadecimal && prefix.len() == ID_DIGITS {
        return Ok(prefix.to_ascii_lowercase());
    }
    let mut found = list.iter().filter(|info| info.id.starts_with(prefix));
    match (found.next().filter(|_| hexadecimal), found.next()) {
        (Some(only), None) => Ok(only.id.clone()),
        (Some(_), Some(_)) => Err(UsageError::TemplateAmbiguous {
            prefix: prefix.to_owned(),
        }),
        (None, _) => Err(UsageError::TemplateUnknown {
            prefix: prefix.to_owned(),
        }),
    }
}

fn print(list: &[TemplateInfo], json: bool) -> Result<u8, CliError> {
    if json {
        terminal::json(list)?;
    } else {
        terminal::stdout(table(list, terminal::stdout_colour()).as_bytes())?;
    }
    Ok(0)
}

const HEADER: [&str; 11] = [
    "ID",
    "LANGUAGE",
    "VCPUS",
    "GUEST",
    "NET",
    "SHARED",
    "DISK",
    "FORK",
    "WAITING",
    "HITS/FORKS",
    "AGE",
];

fn row(info: &TemplateInfo) -> [String; 11] {
    [
        info.id.chars().take(SHOWN_DIGITS).collect(),
        info.language.clone(),
        info.vcpus.to_string(),
        format!("{}M", info.memory_mib),
        if info.network { "yes" } else { "no" }.to_owned(),
        mebibytes(info.memory_bytes),
        mebibytes(info.disk_bytes),
        info.fork_kib
            .map_or("-".to_owned(), |kib| format!("{kib}K")),
        info.waiting.to_string(),
        format!("{}/{}", info.hits, info.forks),
        age(info.age_s),
    ]
}

fn table(list: &[TemplateInfo], colour: bool) -> String {
    let rows: Vec<[String; 11]> = list.iter().map(row).collect();
    let widths: Vec<usize> = (0..HEADER.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.chain([HEADER[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths);
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ")
    };
    let header = format!("{}  STATE", line(HEADER.to_vec()));
    let mut text = format!("{}\n", paint(&header, Style::Bold, colour));
    for (row, info) in rows.iter().zip(list) {
        let state = match info.state {
            TemplateState::Ready => paint("ready", Style::Good, colour),
            TemplateState::Building => paint("building", Style::Dim, colour),
            TemplateState::Failed => {
                let reason = info.reason.as_deref().unwrap_or("unknown reason");
                paint(&format!("failed: {reason}"), Style::Bad, colour)
            }
        };
        let cells = row.iter().map(String::as_str).collect();
        let _ = writeln!(text, "{}  {state}", line(cells));
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes => format!("{:.1}M", bytes as f64 / f64::from(1 << 20)),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: &str, state: TemplateState) -> TemplateInfo {
        TemplateInfo {
            id: id.into(),
            language: "python".into(),
            vcpus: 1,
            memory_mib: 512,
            network: false,
            state,
            reason: Some("no kernel".into()),
            created_ms: 0,
            age_s: 7_300,
            last_used_s: None,
            waiting: 3,
            forks: 9,
            hits: 7,
            memory_bytes: 3 << 19,
            disk_bytes: 0,
            fork_kib: Some(700),
        }
    }

    #[test]
    fn the_table_shows_sizes_age_and_why_a_build_failed() {
        let list = [info(&"a".repeat(64), TemplateState::Failed)];
        let text = table(&list, false);
        let line = text.lines().nth(1).unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "aaaaaaaaaaaa",
                "python",
                "1",
                "512M",
                "no",
                "1.5M",
                "-",
                "700K",
                "3",
                "7/9",
                "2h",
                "failed:",
                "no",
                "kernel"
            ]
        );
    }

    #[test]
    fn a_prefix_of_one_id_alone_is_enough() {
        let list = [
            info("ab01", TemplateState::Ready),
            info("ab02", TemplateState::Ready),
        ];
        assert_eq!(whole_id("ab02", &list).unwrap(), "ab02");
        assert!(
            whole_id("ab", &list)
                .unwrap_err()
                .to_string()
                .contains("several")
        );
        assert!(whole_id("", &list).is_err());
        assert!(whole_id("cd", &list).is_err());
        let whole = "F".repeat(64);
        assert_eq!(whole_id(&whole, &list).unwrap(), "f".repeat(64));
    }
}
