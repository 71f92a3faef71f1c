//! A case, and the server that the cases share.

use std::sync::{Arc, Mutex, PoisonError};

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::Execution;
use libtest_mimic::Trial;

/// An attack.
pub struct Case {
    pub name: String,
    /// The damage that it does to a build without the wall that it tests.
    pub naive: String,
    /// Panics if it does that damage here.
    pub run: Box<dyn Fn() + Send + Sync>,
}

impl From<Case> for Trial {
    fn from(case: Case) -> Trial {
        Trial::test(case.name, move || {
            (case.run)();
            Ok(())
        })
        .with_kind(case.naive)
    }
}

/// See [`Case`] for the arguments.
pub fn case(name: &str, naive: &str, run: impl Fn() + Send + Sync + 'static) -> Case {
    Case {
        name: name.to_owned(),
        naive: naive.to_owned(),
        run: Box::new(run),
    }
}

/// The shared server. Its programs may be root in their VM, and may ask for the network.
static SHARED: Mutex<Option<Arc<Backend>>> = Mutex::new(None);

/// The shared server; the first call starts it.
pub fn shared() -> Arc<Backend> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let backend = shared.get_or_insert_with(|| Arc::new(Backend::start("vm.max_concurrent = 4")));
    Arc::clone(backend)
}

/// Stops the shared server, and panics if it leaves anything on the host.
pub fn stop_shared() {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(backend) = shared.take() {
        Arc::into_inner(backend).unwrap().stop();
    }
}

/// Runs a program of the language on the shared server, then an ordinary one, which must succeed.
pub fn run(language: &str, options: &[&str], code: &str) -> Execution {
    let backend = shared();
    let arguments = [&["run", "--json", "-l", language, "-c", code], options].concat();
    let execution = cloude::execution(&cloude::run(&backend, &arguments));
    still_serves(&backend);
    execution
}

/// Panics unless the server runs an ordinary program.
pub fn still_serves(backend: &Backend) {
    let execution = cloude::bash(backend, &["--timeout", cloude::LONGEST], "echo well");
    assert_eq!(
        (execution.cause, execution.stdout.to_text().as_str()),
        (Cause::Exit, "well\n"),
        "after the attack an ordinary program fails: {execution:?}"
    );
}

/// Panics unless the program exited with 0 and printed exactly this.
pub fn prints(execution: &Execution, text: &str) {
    assert_eq!(
        (execution.cause, execution.exit_code),
        (Cause::Exit, Some(0)),
        "{execution:?}"
    );
    assert_eq!(execution.stdout.to_text(), text, "{execution:?}");
}
