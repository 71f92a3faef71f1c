//! A program cannot distinguish a fork of a warm template from a cold boot: each program of the corpus is executed
//! both ways, and every observable result must be identical, byte for byte.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloude_e2e::backend::Backend;
use cloude_e2e::binaries;
use cloude_e2e::corpus::{self, Program};
use cloude_e2e::curl;
use cloude_protocol::agent::StageResult;
use cloude_protocol::api::Execution;
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// The minimum number of programs of each language in the corpus, and of all languages together.
const FEWEST_OF_ONE: usize = 10;
const FEWEST: usize = 170;

/// The `start` field of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Cold,
    Fork,
}

impl Way {
    fn field(self) -> &'static str {
        match self {
            Way::Cold => "cold",
            Way::Fork => "fork",
        }
    }

    /// Whether the `start` of a result fits the request. `pool` is a fork, too.
    fn is(self, start: &str) -> bool {
        match self {
            Way::Cold => start == "cold",
            Way::Fork => matches!(start, "fork" | "pool"),
        }
    }
}

/// The second execution, which is compared with the cold one: a fork, or with `CLOUDE_PARITY=cold` another cold
/// boot, which shows whether a new program is deterministic.
fn second_way() -> Way {
    match std::env::var("CLOUDE_PARITY").as_deref() {
        Err(_) | Ok("fork") => Way::Fork,
        Ok("cold") => Way::Cold,
        Ok(other) => panic!("CLOUDE_PARITY is {other:?}: set it to fork or cold"),
    }
}

/// An execution, and its `run.warm`: whether a preloaded interpreter ran the program.
struct Run {
    execution: Execution,
    warm: bool,
}

fn execute(backend: &Backend, program: &Program, way: Way) -> Result<Run, String> {
    let mut request = serde_json::to_value(program.request()).unwrap();
    request["start"] = way.field().into();
    let answer = curl::post(
        &format!("{}/v1/executions", backend.url()),
        &request.to_string(),
    );
    if answer.status != 200 {
        return Err(format!("HTTP status {}: {}", answer.status, answer.body));
    }
    let start = answer.body["start"].as_str().unwrap_or_default();
    if !way.is(start) {
        return Err(format!("requested start {}, got {start:?}", way.field()));
    }
    Ok(Run {
        warm: answer.body["run"]["warm"] == Value::Bool(true),
        execution: serde_json::from_value(answer.body).unwrap(),
    })
}

/// All observable results of a program, by name.
fn shown(execution: &Execution) -> Vec<(&'static str, String)> {
    let bytes = |data: &cloude_protocol::Data| data.0.escape_ascii().to_string();
    let stage = |result: &StageResult| {
        format!(
            "{:?}, exit code {:?}, signal {:?}, {} + {} bytes, {} + {} dropped",
            result.cause,
            result.exit_code,
            result.signal,
            result.stdout_bytes,
            result.stderr_bytes,
            result.stdout_dropped,
            result.stderr_dropped
        )
    };
    let compile = execution.compile.as_ref();
    vec![
        ("status", format!("{:?}", execution.status)),
        ("cause", format!("{:?}", execution.cause)),
        ("exit code", format!("{:?}", execution.exit_code)),
        ("signal", format!("{:?}", execution.signal)),
        ("stdout", bytes(&execution.stdout)),
        ("stderr", bytes(&execution.stderr)),
        ("run", execution.run.as_ref().map(stage).unwrap_or_default()),
        (
            "compile",
            compile.map(|it| stage(&it.result)).unwrap_or_default(),
        ),
        (
            "compiler's stdout",
            compile.map(|it| bytes(&it.stdout)).unwrap_or_default(),
        ),
        (
            "compiler's stderr",
            compile.map(|it| bytes(&it.stderr)).unwrap_or_default(),
        ),
    ]
}

/// Describes the first difference of two texts, with some context.
fn parting(first: &str, second: &str) -> String {
    let same = first
        .chars()
        .zip(second.chars())
        .take_while(|(one, other)| one == other)
        .count();
    let around = |text: &str| {
        text.chars()
            .skip(same.saturating_sub(60))
            .take(300)
            .collect::<String>()
    };
    format!(
        "at character {same}\n        {}\n        {}",
        around(first),
        around(second)
    )
}

/// Executes a program both ways. Returns a description of every problem, empty if there is none, and whether a
/// preloaded interpreter ran the second execution.
fn check(backend: &Backend, program: &Program, second: Way) -> (String, bool) {
    let mut wrong = String::new();
    let (cold, other) = match (
        execute(backend, program, Way::Cold),
        execute(backend, program, second),
    ) {
        (Ok(cold), Ok(other)) => (cold, other),
        (cold, other) => {
            for error in [cold.err(), other.err()].into_iter().flatten() {
                writeln!(wrong, "    {error}").unwrap();
            }
            return (wrong, false);
        }
    };
    let execution = &cold.execution;
    let end = (execution.cause, execution.exit_code, execution.signal);
    if end != program.front.end() {
        writeln!(
            wrong,
            "    the cold execution ended with {end:?}, but its front matter has {:?}; {:?}, stderr {:?}",
            program.front.end(),
            execution.error,
            execution.stderr.to_text()
        )
        .unwrap();
    }
    for ((what, first), (_, second)) in shown(execution).iter().zip(&shown(&other.execution)) {
        if first != second {
            writeln!(wrong, "    {what} differs {}", parting(first, second)).unwrap();
        }
    }
    (wrong, other.warm)
}

fn programs_show_the_same_cold_and_forked(language: &str) {
    // One at a time for languages with large VMs, which fill the memory of a small host.
    let at_once = if binaries::is_large(&binaries::language(language)) {
        1
    } else {
        2
    };
    let second = second_way();
    let backend = Backend::start("");
    let programs = corpus::chosen(language);
    let (next, warm, wrong) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
    );
    // New threads inherit this thread's network namespace, which is also the backend's.
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (problem, was_warm) = check(&backend, program, second);
                    warm.fetch_add(usize::from(was_warm), Ordering::Relaxed);
                    if !problem.is_empty() {
                        let problem = format!("{}\n{problem}", program.name);
                        // Printed at once, so that an aborted run shows the problems found so far.
                        eprint!("{problem}");
                        wrong.lock().unwrap().push(problem);
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    println!(
        "{language}: {} programs cold and {}, {} of them by a warm interpreter; {} differ",
        programs.len(),
        second.field(),
        warm.into_inner(),
        wrong.len()
    );
    assert!(
        !programs.is_empty(),
        "no program is selected: check CLOUDE_PARITY_ONLY"
    );
    assert!(
        wrong.is_empty(),
        "{} programs, {} with differences:\n{}",
        programs.len(),
        wrong.len(),
        wrong.concat()
    );
    backend.stop();
}

fn the_corpus_is_well_formed_and_large_enough() {
    let mut total = 0;
    for language in corpus::languages() {
        let count = corpus::programs(&language).len();
        assert!(count >= FEWEST_OF_ONE, "{language}: {count} programs");
        total += count;
    }
    assert!(total >= FEWEST, "{total} programs");
}

fn main() {
    let corpus = Trial::test("the_corpus_is_well_formed_and_large_enough", || {
        the_corpus_is_well_formed_and_large_enough();
        Ok(())
    });
    let programs = corpus::languages().into_iter().map(|name| {
        let trial = binaries::trial(&binaries::language(&name));
        Trial::test(
            format!("{trial}::programs_show_the_same_cold_and_forked"),
            move || {
                programs_show_the_same_cold_and_forked(&name);
                Ok(())
            },
        )
    });
    let trials = std::iter::once(corpus).chain(programs).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
