//! The program of a batch, which is compiled once for all of its executions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cloude_engine::Failure;
use cloude_protocol::agent::{Cause, Event, ExecuteRequest, File, StageResult};
use tokio::sync::OnceCell;

/// The programs of the batches that have unfinished executions, by the batch's id.
#[derive(Debug, Default)]
pub struct Programs(Mutex<HashMap<String, Weak<Program>>>);

impl Programs {
    /// The program of a batch.
    pub fn of(&self, batch: &str) -> Arc<Program> {
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(batch).and_then(Weak::upgrade) {
            return program;
        }
        programs.retain(|_, program| program.strong_count() > 0);
        let program = Arc::new(Program::default());
        programs.insert(batch.to_owned(), Arc::downgrade(&program));
        program
    }
}

/// The program of a batch.
#[derive(Debug, Default)]
pub struct Program(OnceCell<Option<Compiled>>);

/// A program after its compile stage.
#[derive(Debug)]
pub struct Compiled {
    /// The environment of the compiler.
    pub env: BTreeMap<String, String>,
    /// The events of the compile stage.
    pub events: Vec<Event>,
    pub result: StageResult,
    /// The work directory after the stage. Empty if the stage failed.
    pub files: Vec<File>,
}

impl Program {
    /// The compiled program, by the first caller's `compile`; the others wait for it. `None` if `execute` has to compile for
    /// itself: the compiled program is too large to be sent, the compiler had other variables, or `compile` failed.
    pub async fn compiled(
        &self,
        execute: &ExecuteRequest,
        compile: impl Future<Output = Result<Option<Compiled>, Failure>>,
    ) -> Option<&Compiled> {
        // After a failure the next caller tries again.
        let compiled = self.0.get_or_try_init(|| compile).await.ok()?;
        compiled.as_ref().filter(|it| it.env == execute.env)
    }
}

impl Compiled {
    /// True if there is a program to run.
    pub fn has_succeeded(&self) -> bool {
        self.result.cause == Cause::Exit && self.result.exit_code == Some(0)
    }

    /// Changes a request so that it runs this program and compiles nothing.
    pub fn apply(&self, execute: &mut ExecuteRequest) {
        execute.compile = None;
        execute.files.clone_from(&self.files);
    }
}
