//! The list of executions: those in memory and those of the store.

use std::collections::HashSet;

use cloude_protocol::api::{ExecutionList, ExecutionSummary};

use super::service::Service;
use crate::keys::Caller;
use crate::store::{Filter, StoreError};

/// The most executions of a page.
pub const MAX_PAGE: usize = 200;

impl Service {
    /// A page of the executions that the caller may see, newest first. The caller decides the owner of `filter`.
    pub async fn list(
        &self,
        caller: &Caller,
        mut filter: Filter,
    ) -> Result<ExecutionList, StoreError> {
        let store = &self.parts().store;
        filter.owner = match caller.sees_all() {
            true => None,
            false => Some(caller.tenant().clone()),
        };
        // Read before the store: what ends meanwhile is in one of the two.
        let unfinished = self.inner.cache.unfinished();
        let jobs = unfinished
            .iter()
            .filter(|job| caller.may_see(&job.about.tenant))
            .map(|job| job.summary());
        let unwritten = store.unwritten(filter.owner.as_ref());
        let mut known = HashSet::new();
        let mut found: Vec<_> = jobs
            .chain(unwritten)
            .filter(|summary| known.insert(summary.id.clone()))
            .collect();
        let stored = store.list(filter.clone()).await?;
        let has_more = stored.len() == filter.limit;
        // Beyond the last one the store may have others that come first.
        let last = stored.last().filter(|_| has_more).map(position);
        found.extend(
            stored
                .into_iter()
                .filter(|summary| known.insert(summary.id.clone())),
        );
        found.retain(|summary| {
            filter.takes(summary) && last.as_ref().is_none_or(|last| position(summary) >= *last)
        });
        found.sort_unstable_by_key(|summary| std::cmp::Reverse(position(summary)));
        let next = if found.len() > filter.limit {
            found.truncate(filter.limit);
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
