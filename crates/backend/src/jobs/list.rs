//! The list of executions: those in memory and those of the store.

use std::collections::HashSet;

use cloude_protocol::api::{ExecutionList, ExecutionSummary, Status};

use super::service::Service;
use crate::keys::Caller;
use crate::store::{Filter, StoreError};

/// The most executions of a page.
pub const MAX_PAGE: usize = 200;

/// The executions to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    pub status: Option<Status>,
    /// A language's name, not an alias.
    pub language: Option<String>,
    /// Labels that an execution must have.
    pub labels: Vec<(String, String)>,
    /// 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// The time of the last execution of the page before, and its id.
    pub after: Option<(u64, String)>,
}

impl ListQuery {
    fn takes(&self, summary: &ExecutionSummary) -> bool {
        let is_after = self
            .after
            .as_ref()
            .is_none_or(|(created_ms, id)| (summary.created_ms, &summary.id) < (*created_ms, id));
        let has = |(name, value): &(String, String)| summary.labels.get(name) == Some(value);
        is_after
            && self.status.is_none_or(|status| status == summary.status)
            && self
                .language
                .as_ref()
                .is_none_or(|language| *language == summary.language)
            && self.labels.iter().all(has)
    }
}

impl Service {
    /// A page of the executions that the caller may see, newest first.
    pub async fn list(
        &self,
        caller: &Caller,
        query: ListQuery,
    ) -> Result<ExecutionList, StoreError> {
        let store = &self.parts().store;
        let owner = match caller.sees_all() {
            true => None,
            false => Some(caller.tenant().clone()),
        };
        // Read before the store: what ends meanwhile is in one of the two.
        let unfinished = self.inner.cache.unfinished();
        let jobs = unfinished
            .iter()
            .filter(|job| caller.may_see(&job.about.tenant))
            .map(|job| job.summary());
        let unwritten = store.unwritten(owner.as_ref());
        let mut known = HashSet::new();
        let mut found: Vec<_> = jobs
            .chain(unwritten)
            .filter(|summary| known.insert(summary.id.clone()))
            .collect();
        let filter = Filter {
            owner,
            status: query.status,
            language: query.language.clone(),
            labels: query.labels.clone(),
            before: query.after.clone(),
            limit: query.limit,
        };
        let stored = store.list(filter).await?;
        let has_more = stored.len() == query.limit;
        // Beyond the last one the store may have others that come first.
        let last = stored.last().filter(|_| has_more).map(position);
        found.extend(
            stored
                .into_iter()
                .filter(|summary| known.insert(summary.id.clone())),
        );
        found.retain(|summary| {
            query.takes(summary) && last.as_ref().is_none_or(|last| position(summary) >= *last)
        });
        found.sort_unstable_by_key(|summary| std::cmp::Reverse(position(summary)));
        let next = if found.len() > query.limit {
            found.truncate(query.limit);
            found.last().map(position)
        } else {
            last
        };
        Ok(ExecutionList {
            executions: found,
            next_cursor: next.map(|(created_ms, id)| format!("{created_ms}-{id}")),
        })
    }
}

fn position(summary: &ExecutionSummary) -> (u64, String) {
    (summary.created_ms, summary.id.clone())
}
