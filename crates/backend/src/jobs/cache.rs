//! Executions in memory: all unfinished ones, and the most recently finished.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloude_protocol::api::Execution;

use super::Job;
use crate::store::output_bytes;

/// Estimated bytes of a finished execution without its output.
const OVERHEAD: usize = 2048;

/// Jobs by id.
#[derive(Debug)]
pub struct Cache {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: HashMap<String, Arc<Job>>,
    finished: VecDeque<(String, usize)>,
    bytes: usize,
}

impl Cache {
    /// `limit`: bytes of finished executions.
    pub fn new(limit: usize) -> Self {
        Cache {
            limit,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, job: Arc<Job>) {
        self.lock().jobs.insert(job.id.clone(), job);
    }

    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.lock().jobs.get(id).cloned()
    }

    pub fn remove(&self, id: &str) {
        self.lock().jobs.remove(id);
    }

    /// Counts a job as finished, and evicts the oldest finished jobs beyond the limit.
    pub fn finished(&self, execution: &Execution) {
        let bytes = OVERHEAD + output_bytes(execution);
        let mut state = self.lock();
        state.bytes += bytes;
        state.finished.push_back((execution.id.clone(), bytes));
        while state.bytes > self.limit {
            let Some((oldest, bytes)) = state.finished.pop_front() else {
                break;
            };
            state.bytes -= bytes;
            state.jobs.remove(&oldest);
        }
    }
}
