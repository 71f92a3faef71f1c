//! Executions in memory: all unfinished ones, and the most recently finished.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloude_protocol::api::Execution;

use super::job::Job;
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
    unfinished: HashMap<String, Arc<Job>>,
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
        let mut state = self.lock();
        let id = &job.about.id;
        state.unfinished.insert(id.clone(), Arc::clone(&job));
        state.jobs.insert(id.clone(), job);
    }

    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.lock().jobs.get(id).cloned()
    }

    pub fn remove(&self, id: &str) {
        let mut state = self.lock();
        state.unfinished.remove(id);
        state.jobs.remove(id);
    }

    /// Jobs without a result, and those whose result is about to be stored.
    pub fn unfinished(&self) -> Vec<Arc<Job>> {
        self.lock().unfinished.values().cloned().collect()
    }

    /// Counts a job as finished, and evicts the oldest finished jobs beyond the limit. `overhead`: bytes beside its output and
    /// artifacts.
    pub fn finished(&self, execution: &Execution, overhead: usize) {
        let artifacts: u64 = execution.artifacts.iter().map(|file| file.bytes).sum();
        let artifacts = usize::try_from(artifacts).unwrap_or(usize::MAX);
        let bytes = OVERHEAD + overhead + output_bytes(execution) + artifacts;
        let mut state = self.lock();
        state.unfinished.remove(&execution.id);
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
