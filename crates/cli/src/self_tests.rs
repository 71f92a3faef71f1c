//! `languages test`: runs the self-tests of languages (docs/languages.md) through the backend.

use std::path::PathBuf;

use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, Installation, LanguageInfo, Status};
use cloude_protocol::language::SelfTest;
use cloude_protocol::languages;
use serde::Serialize;
use serde_json::json;

use crate::args::{self, Start};
use crate::client::Backend;
use crate::error::{BackendError, CliError, UsageError};
use crate::paths;
use crate::terminal::{self, Style, paint};

/// Exit code if a self-test failed. docs/cli.md lists the others.
const FAILED: u8 = 1;
/// The text that every self-test prints to standard error.
const STDERR: &str = "this line is not part of it\n";
/// Characters of a text that a failure shows.
const SHOWN: usize = 300;

/// The outcome of one self-test.
#[derive(Serialize)]
struct Outcome {
    language: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    passed: bool,
    /// The first difference, or why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// From the request's arrival at the backend to the result, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<u64>,
}

/// `cloude languages test`.
pub async fn test(args: args::LanguagesTest, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
    let known = backend.languages().await?;
    let chosen = choose(&args, &known)?;
    let dir = folder(args.languages_dir, &backend).await;
    let table = Table::new(&chosen);
    if !args.json {
        table.header()?;
    }
    let mut outcomes = Vec::new();
    for (index, language) in chosen.iter().enumerate() {
        let count = chosen.len();
        terminal::show_spinner(format!("{} ({} of {count})", language.name, index + 1));
        let outcome = match languages::load(&dir, &language.name) {
            Ok(found) => run(&backend, language, &found.self_test, args.start).await,
            Err(error) => Ok(Outcome::not_run(language, error.to_string())),
        };
        terminal::clear_spinner();
        let outcome = outcome?;
        if !args.json {
            table.row(&outcome)?;
        }
        outcomes.push(outcome);
    }
    if args.json {
        terminal::json(&outcomes)?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if failed > 0 {
        terminal::note(&format!("{failed} of {} self-tests failed", outcomes.len()));
        return Ok(FAILED);
    }
    Ok(0)
}

/// The languages to test. Without names, those that have an image: a server builds the others when they are first
/// requested, which takes minutes each.
fn choose<'a>(
    args: &args::LanguagesTest,
    known: &'a [LanguageInfo],
) -> Result<Vec<&'a LanguageInfo>, UsageError> {
    if args.languages.is_empty() {
        let ready = |language: &&LanguageInfo| args.all || language.image_ready;
        let chosen: Vec<&LanguageInfo> = known.iter().filter(ready).collect();
        if chosen.is_empty() {
            return Err(UsageError::NoLanguageReady);
        }
        let left_out = known.len() - chosen.len();
        if left_out > 0 {
            terminal::note(&format!(
                "{left_out} languages without an image are left out: --all builds and tests them too"
            ));
        }
        return Ok(chosen);
    }
    let find = |name: &String| {
        let is = |known: &String| known.eq_ignore_ascii_case(name);
        let found = known
            .iter()
            .find(|language| is(&language.name) || language.aliases.iter().any(is));
        found.ok_or_else(|| UsageError::UnknownLanguage {
            name: name.clone(),
            languages: known.iter().map(|it| it.name.clone()).collect(),
        })
    };
    args.languages.iter().map(find).collect()
}

/// The folder with the self-tests: the option's, the backend's if it is on this machine, or the default.
async fn folder(option: Option<PathBuf>, backend: &Backend) -> PathBuf {
    if let Some(dir) = option {
        return dir;
    }
    // A backend refuses this on keys without the scope, and has it not in older versions.
    let installation: Result<Installation, CliError> = backend.get("v1/installation").await;
    let dir = installation.map(|installation| PathBuf::from(installation.languages));
    dir.ok()
        .filter(|dir| dir.is_dir())
        .unwrap_or_else(paths::languages)
}

/// Runs one self-test. An error is one that every other self-test would meet, too.
async fn run(
    backend: &Backend,
    language: &LanguageInfo,
    test: &SelfTest,
    start: Option<Start>,
) -> Result<Outcome, CliError> {
    let mut request = json!({
        "language": language.name,
        "code": test.code,
        "args": test.args,
        "stdin": test.stdin,
    });
    if let Some(start) = start {
        request["start"] = match start {
            Start::Cold => "cold".into(),
            Start::Fork => "fork".into(),
        };
    }
    let execution: Execution = match backend.post("v1/executions", &request).await {
        Ok(execution) => execution,
        Err(
            error @ CliError::Backend(
                BackendError::Refused { .. }
                | BackendError::Failed { .. }
                | BackendError::Busy { .. }
                | BackendError::Broken { .. },
            ),
        ) => return Ok(Outcome::not_run(language, error.to_string())),
        Err(error) => return Err(error),
    };
    let reason = difference(&execution, test);
    Ok(Outcome {
        language: language.name.clone(),
        version: execution.version.or_else(|| language.version.clone()),
        passed: reason.is_none(),
        reason,
        time_ms: Some(execution.timings.total_us / 1000),
    })
}

/// The first thing that is not as the self-test says.
fn difference(execution: &Execution, test: &SelfTest) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&execution.stdout.0), text(&execution.stderr.0));
    if execution.status == Status::Error {
        return Some(execution.error.clone().unwrap_or(stderr));
    }
    if let (Some(compile), None) = (&execution.compile, &execution.run) {
        let output = [text(&compile.stdout.0), text(&compile.stderr.0)].concat();
        let cause = format!("{:?}", compile.result.cause).to_lowercase();
        return Some(format!("the compiler failed ({cause}): {}", short(&output)));
    }
    if execution.cause != Cause::Exit {
        let cause = format!("{:?}", execution.cause).to_lowercase();
        return Some(format!("ended by {cause}: {}", short(&stderr)));
    }
    for (name, found, wanted) in [
        ("standard output", &stdout, test.stdout.as_str()),
        ("standard error", &stderr, STDERR),
    ] {
        if found != wanted {
            return Some(format!("{name} is {}, not {}", short(found), short(wanted)));
        }
    }
    let code = execution.exit_code;
    (code != Some(test.exit_code)).then(|| {
        let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
        format!("the exit code is {code}, not {}", test.exit_code)
    })
}

/// A text on one line, without most of a long one.
fn short(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(SHOWN).collect();
    format!("{start:?}…")
}

impl Outcome {
    fn not_run(language: &LanguageInfo, reason: String) -> Self {
        Outcome {
            language: language.name.clone(),
            version: language.version.clone(),
            passed: false,
            reason: Some(reason.replace('\n', " ")),
            time_ms: None,
        }
    }
}

/// Prints a row as each self-test ends: all of them may take minutes.
struct Table {
    name_width: usize,
    version_width: usize,
    colour: bool,
}

impl Table {
    fn new(languages: &[&LanguageInfo]) -> Self {
        let width = |header: &str, cells: Vec<usize>| cells.into_iter().chain([header.len()]).max();
        let names = languages.iter().map(|it| it.name.chars().count());
        let versions = languages.iter().filter_map(|it| it.version.as_ref());
        let versions = versions.map(|version| version.chars().count());
        Table {
            name_width: width("LANGUAGE", names.collect()).unwrap_or(0),
            version_width: width("VERSION", versions.collect()).unwrap_or(0),
            colour: terminal::stdout_colour(),
        }
    }

    fn header(&self) -> Result<(), CliError> {
        let line = self.line("LANGUAGE", "VERSION", "TIME", "RESULT");
        terminal::stdout(format!("{}\n", paint(&line, Style::Bold, self.colour)).as_bytes())
    }

    fn row(&self, outcome: &Outcome) -> Result<(), CliError> {
        let result = match &outcome.reason {
            None => paint("passed", Style::Good, self.colour),
            Some(reason) => paint(&format!("failed: {reason}"), Style::Bad, self.colour),
        };
        let time = outcome.time_ms.map_or_else(
            || "-".to_owned(),
            |time_ms| format!("{:.2}s", time_ms as f64 / 1e3),
        );
        let version = outcome.version.as_deref().unwrap_or("-");
        let line = self.line(&outcome.language, version, &time, &result);
        terminal::stdout(format!("{line}\n").as_bytes())
    }

    fn line(&self, name: &str, version: &str, time: &str, result: &str) -> String {
        let (names, versions) = (self.name_width, self.version_width);
        format!("{name:<names$}  {version:<versions$}  {time:>7}  {result}")
    }
}
