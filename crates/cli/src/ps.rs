//! `ps`: lists executions.

use std::time::{SystemTime, UNIX_EPOCH};

use cloude_protocol::api::{ExecutionList, ExecutionSummary, Status};

use crate::args::{self, State};
use crate::client::Backend;
use crate::error::{CliError, UsageError};
use crate::table::{printable, rounded, table};
use crate::terminal;

/// The most executions of one response.
const PAGE: u32 = 100;

/// `cloude ps`.
pub async fn list(args: args::Ps, options: &args::Backend) -> Result<u8, CliError> {
    let filters = filters(&args)?;
    let backend = Backend::new(options)?;
    let mut executions: Vec<ExecutionSummary> = Vec::new();
    let mut cursor = None;
    let wanted = args.limit as usize;
    // A page may be empty although there is a next one.
    loop {
        let rest = wanted - executions.len();
        let mut query = filters.clone();
        query.push(("limit", rest.min(PAGE as usize).to_string()));
        query.extend(cursor.map(|cursor: String| ("cursor", cursor)));
        let page: ExecutionList = backend.get_with("v1/executions", &query).await?;
        executions.extend(page.executions.into_iter().take(rest));
        cursor = page.next_cursor;
        if executions.len() == wanted || cursor.is_none() {
            break;
        }
    }
    if args.json {
        terminal::json(&executions)?;
    } else if args.quiet {
        let ids = executions.iter().map(|it| format!("{}\n", it.id));
        terminal::stdout(ids.collect::<String>().as_bytes())?;
    } else {
        let text = shown(&executions, now_ms(), terminal::stdout_colour());
        terminal::stdout(text.as_bytes())?;
    }
    Ok(0)
}

fn filters(args: &args::Ps) -> Result<Vec<(&'static str, String)>, UsageError> {
    let mut query = Vec::new();
    if let Some(state) = args.status {
        query.push(("status", word(status(state)).to_owned()));
    }
    if let Some(language) = &args.language {
        query.push(("language", language.clone()));
    }
    for spec in &args.labels {
        let Some((name, value)) = spec.split_once('=') else {
            return Err(UsageError::Label { spec: spec.clone() });
        };
        query.push(("label", format!("{name}:{value}")));
    }
    Ok(query)
}

fn status(state: State) -> Status {
    match state {
        State::Pending => Status::Pending,
        State::Running => Status::Running,
        State::Done => Status::Done,
        State::Error => Status::Error,
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Running => "running",
        Status::Done => "done",
        Status::Error => "error",
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}

fn shown(executions: &[ExecutionSummary], now_ms: u64, colour: bool) -> String {
    let rows: Vec<[String; 7]> = executions
        .iter()
        .map(|execution| {
            let end = execution.finished_ms.unwrap_or(now_ms);
            let labels = execution.labels.iter();
            let labels = labels.map(|(name, value)| format!("{name}={value}"));
            [
                execution.id.clone(),
                word(execution.status).to_owned(),
                execution.language.clone(),
                execution.cause.map_or_else(dash, cause),
                execution
                    .exit_code
                    .map_or_else(dash, |code| code.to_string()),
                format!(
                    "{} ago, {}",
                    rounded(now_ms.saturating_sub(execution.created_ms)),
                    rounded(end.saturating_sub(execution.created_ms))
                ),
                printable(&labels.collect::<Vec<_>>().join(",")),
            ]
        })
        .collect();
    let header = [
        "ID",
        "STATUS",
        "LANGUAGE",
        "CAUSE",
        "EXIT",
        "CREATED, TOOK",
        "LABELS",
    ];
    table(header, &rows, colour)
}

fn dash() -> String {
    "-".to_owned()
}

/// The name of a cause in JSON.
fn cause(cause: cloude_protocol::agent::Cause) -> String {
    let json = serde_json::to_value(cause).unwrap_or_default();
    json.as_str().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use cloude_protocol::agent::Cause;

    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_execution() {
        let running = ExecutionSummary {
            id: "b1".into(),
            status: Status::Running,
            language: "python".into(),
            cause: None,
            exit_code: None,
            labels: [("job".to_owned(), "nightly\u{7}".to_owned())].into(),
            created_ms: 60_000,
            finished_ms: None,
        };
        let done = ExecutionSummary {
            id: "a1".into(),
            status: Status::Done,
            cause: Some(Cause::WallTime),
            exit_code: Some(3),
            labels: Default::default(),
            created_ms: 0,
            finished_ms: Some(2_000),
            ..running.clone()
        };
        let expected = "\
ID  STATUS   LANGUAGE  CAUSE      EXIT  CREATED, TOOK  LABELS
b1  running  python    -          -     1m ago, 1m     job=nightly\u{fffd}
a1  done     python    wall_time  3     2m ago, 2s
";
        assert_eq!(shown(&[running, done], 120_000, false), expected);
    }
}
