//! `template`: what executions are forked from.

use std::fmt::Write as _;

use cloude_protocol::api::{TemplateInfo, TemplateRequest, TemplateState};

use crate::args::{self, TemplateCommand};
use crate::client::Backend;
use crate::error::CliError;
use crate::terminal::{self, Style, paint};

/// So much of an id is shown, and is enough for `rm` where it is one template's alone.
const SHORT: usize = 12;
/// An id as a server gives it.
const FULL: usize = 64;

/// `cloude template`.
pub async fn template(args: args::Template) -> Result<u8, CliError> {
    match args.command {
        TemplateCommand::Ls { json, backend } => {
            let list: Vec<TemplateInfo> = Backend::new(&backend.url)?.get("v1/templates").await?;
            print(&list, json)
        }
        TemplateCommand::Build(build) => self::build(build).await,
        TemplateCommand::Rm(rm) => remove(rm).await,
    }
}

async fn build(args: args::TemplateBuild) -> Result<u8, CliError> {
    let backend = Backend::new(&args.backend.url)?;
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

async fn remove(args: args::TemplateRm) -> Result<u8, CliError> {
    let backend = Backend::new(&args.backend.url)?;
    let list: Vec<TemplateInfo> = backend.get("v1/templates").await?;
    let ids: Vec<String> = if args.all {
        // One that is being built cannot be removed.
        let there = list.into_iter();
        there
            .filter(|info| info.state != TemplateState::Building)
            .map(|info| info.id)
            .collect()
    } else {
        let found: Result<_, CliError> = args.ids.iter().map(|id| whole_id(id, &list)).collect();
        found?
    };
    for id in ids {
        backend.delete(&format!("v1/templates/{id}")).await?;
        terminal::stdout(format!("{id}\n").as_bytes())?;
    }
    Ok(0)
}

/// The id that begins so. A whole one is taken as it is: it may lie on the server's disk alone.
fn whole_id(start: &str, list: &[TemplateInfo]) -> Result<String, CliError> {
    let hexadecimal = !start.is_empty() && start.bytes().all(|b| b.is_ascii_hexdigit());
    if hexadecimal && start.len() == FULL {
        return Ok(start.to_ascii_lowercase());
    }
    let mut found = list.iter().filter(|info| info.id.starts_with(start));
    match (found.next().filter(|_| hexadecimal), found.next()) {
        (Some(only), None) => Ok(only.id.clone()),
        (Some(_), Some(_)) => Err(CliError::Usage(format!(
            "{start:?} begins the ids of several templates; give more of it"
        ))),
        (None, _) => Err(CliError::Usage(format!(
            "there is no template {start:?}; `cloude template ls` lists them"
        ))),
    }
}

fn print(list: &[TemplateInfo], json: bool) -> Result<u8, CliError> {
    let text = if json {
        let json = serde_json::to_string(list)
            .map_err(|error| CliError::Infrastructure(error.to_string()))?;
        format!("{json}\n")
    } else {
        table(list, terminal::stdout_colour())
    };
    terminal::stdout(text.as_bytes())?;
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
        info.id.chars().take(SHORT).collect(),
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
                let reason = info.reason.as_deref().unwrap_or("for no known reason");
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
    fn the_table_has_sizes_age_and_the_reason_of_a_failure() {
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
    fn an_ids_beginning_is_enough_where_it_is_one_templates_alone() {
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
