//! Lists of executions.

use cloude_protocol::agent::Cause;
use cloude_protocol::api::{ExecutionSummary, Status};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::error::StoreError;
use super::schema::{parse_status, status_text};
use crate::tenant::Tenant;

/// The columns of [`read`].
pub const COLUMNS: &str = "id, status, language, labels, created_ms, finished_ms,
    json_extract(result, '$.cause'), json_extract(result, '$.exit_code')";

/// The executions to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The owner; all if none.
    pub owner: Option<Tenant>,
    pub status: Option<Status>,
    /// A language's name, not an alias.
    pub language: Option<String>,
    /// Labels that an execution must have.
    pub labels: Vec<(String, String)>,
    /// Time and id of the execution before the first one.
    pub before: Option<(u64, String)>,
    pub limit: usize,
}

impl Filter {
    /// True for an execution to list. The owner is not part of a summary.
    pub fn takes(&self, summary: &ExecutionSummary) -> bool {
        let is_before = self
            .before
            .as_ref()
            .is_none_or(|(created_ms, id)| (summary.created_ms, &summary.id) < (*created_ms, id));
        let has = |(name, value): &(String, String)| summary.labels.get(name) == Some(value);
        is_before
            && self.status.is_none_or(|status| status == summary.status)
            && self
                .language
                .as_ref()
                .is_none_or(|language| *language == summary.language)
            && self.labels.iter().all(has)
    }
}

/// The executions of a page.
pub fn list(connection: &Connection, filter: Filter) -> Result<Vec<ExecutionSummary>, StoreError> {
    let mut conditions = vec!["1".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut add = |condition: &str, value: Vec<Value>| {
        conditions.push(condition.to_owned());
        values.extend(value);
    };
    if let Some(owner) = &filter.owner {
        add("tenant = ?", vec![owner.id().to_owned().into()]);
    }
    if let Some(status) = filter.status {
        add("status = ?", vec![status_text(status).to_owned().into()]);
    }
    if let Some(language) = filter.language {
        add("language = ?", vec![language.into()]);
    }
    for (name, value) in filter.labels {
        add(
            "labels IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ? AND label.value = ?)",
            vec![name.into(), value.into()],
        );
    }
    if let Some((created_ms, id)) = filter.before {
        let created_ms = i64::try_from(created_ms).unwrap_or(i64::MAX);
        add(
            "(created_ms, id) < (?, ?)",
            vec![created_ms.into(), id.into()],
        );
    }
    values.push(i64::try_from(filter.limit).unwrap_or(i64::MAX).into());
    let sql = format!(
        "SELECT {COLUMNS} FROM jobs WHERE {} ORDER BY created_ms DESC, id DESC LIMIT ?",
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The executions of a batch in the order of their inputs, with their owner.
pub fn batch(
    connection: &Connection,
    id: &str,
) -> Result<Vec<(Tenant, ExecutionSummary)>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, tenant FROM jobs WHERE batch = ?1 ORDER BY batch_index");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([id], |row| {
        let tenant: String = row.get(8)?;
        Ok((Tenant::of_key(&tenant), read(row)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The summary in a row of [`COLUMNS`].
pub fn read(row: &Row<'_>) -> Result<ExecutionSummary, rusqlite::Error> {
    let status: String = row.get(1)?;
    let labels: Option<String> = row.get(3)?;
    let labels = labels.and_then(|labels| serde_json::from_str(&labels).ok());
    let cause: Option<String> = row.get(6)?;
    let cause = cause.map(serde_json::Value::String);
    let time = |column| -> Result<Option<u64>, rusqlite::Error> {
        Ok(row
            .get::<_, Option<i64>>(column)?
            .map(|ms| u64::try_from(ms).unwrap_or(0)))
    };
    Ok(ExecutionSummary {
        id: row.get(0)?,
        status: parse_status(&status),
        language: row.get(2)?,
        cause: cause.and_then(|cause| serde_json::from_value::<Cause>(cause).ok()),
        exit_code: row.get(7)?,
        labels: labels.unwrap_or_default(),
        created_ms: time(4)?.unwrap_or(0),
        finished_ms: time(5)?,
    })
}
