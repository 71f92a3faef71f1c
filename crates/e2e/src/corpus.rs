//! The parity corpus: small programs, each about one way in which a program could detect how it was started.
//! `crates/e2e/corpus/README.md` describes the format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, File};
use cloude_protocol::api::{ExecutionRequest, Limits};
use serde::Deserialize;

use crate::binaries;

/// Default time limit of the run stage in milliseconds, long enough for an emulated host.
const WALL_TIME_MS: u64 = 120_000;
/// Default time limit of the compile stage in milliseconds.
const COMPILE_TIME_MS: u64 = 200_000;

/// A program with its inputs and its expected end.
#[derive(Clone, Debug)]
pub struct Program {
    /// `LANGUAGE/FILE`.
    pub name: String,
    /// The whole file.
    pub code: String,
    /// The parsed front matter.
    pub front: FrontMatter,
    language: String,
}

/// The `corpus:` comments of a program, together one TOML document.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FrontMatter {
    /// Arguments.
    pub args: Vec<String>,
    /// Standard input: a text, or `{ base64 = "…" }`.
    pub stdin: Data,
    /// Environment variables in addition to those of the language.
    pub env: BTreeMap<String, String>,
    /// Files beside the program: name and text.
    pub files: BTreeMap<String, String>,
    /// Limits that replace the defaults of the corpus.
    pub limits: Limits,
    /// The expected exit code; absent means 0, unless `signal` or `cause` is set.
    pub exit_code: Option<i32>,
    /// The number of the signal that is expected to end the program.
    pub signal: Option<i32>,
    /// The expected cause, if it is neither `exit` nor `signal`.
    pub cause: Option<Cause>,
}

impl FrontMatter {
    /// The expected cause, exit code and signal.
    pub fn end(&self) -> (Cause, Option<i32>, Option<i32>) {
        match (self.cause, self.signal) {
            (Some(cause), signal) => (cause, self.exit_code, signal),
            (None, Some(signal)) => (Cause::Signal, None, Some(signal)),
            (None, None) => (Cause::Exit, Some(self.exit_code.unwrap_or(0)), None),
        }
    }
}

impl Program {
    /// The request that executes it.
    pub fn request(&self) -> ExecutionRequest {
        let front = &self.front;
        let file = |(path, content): (&String, &String)| File {
            path: path.clone(),
            content: content.as_str().into(),
            mode: None,
        };
        let mut limits = front.limits.clone();
        limits.wall_time_ms = limits.wall_time_ms.or(Some(WALL_TIME_MS));
        let compile = &mut limits.compile;
        compile.wall_time_ms = compile.wall_time_ms.or(Some(COMPILE_TIME_MS));
        ExecutionRequest {
            language: self.language.clone(),
            code: self.code.clone(),
            file_name: Some(self.name.clone()),
            files: front.files.iter().map(file).collect(),
            stdin: front.stdin.clone(),
            args: front.args.clone(),
            env: front.env.clone(),
            limits,
            ..ExecutionRequest::default()
        }
    }
}

/// Every eighth program of a language runs by default; a language with fewer than 16 programs runs its first one.
/// On an emulated host a program takes several seconds, and with a compiler a minute.
const EVERY: usize = 8;

/// The programs of a language to execute: those with `CLOUDE_PARITY_ONLY` in their name, else every
/// `CLOUDE_PARITY_EVERY`th (1: all), else every eighth.
pub fn chosen(language: &str) -> Vec<Program> {
    let mut programs = programs(language);
    if let Ok(wanted) = std::env::var("CLOUDE_PARITY_ONLY") {
        programs.retain(|program| program.name.contains(&wanted));
        return programs;
    }
    let few = programs.len() < 2 * EVERY;
    let every = if few { programs.len().max(1) } else { EVERY };
    let every = std::env::var("CLOUDE_PARITY_EVERY").map_or(every, |text| {
        text.parse()
            .ok()
            .filter(|every| *every > 0)
            .unwrap_or_else(|| {
                panic!("CLOUDE_PARITY_EVERY is {text:?}: set it to a number above 0")
            })
    });
    programs.into_iter().step_by(every).collect()
}

/// The names of the languages that have programs in the corpus, sorted.
pub fn languages() -> Vec<String> {
    let entries = folder()
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder().display()));
    let folders = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All programs of a language, sorted by file name.
pub fn programs(language: &str) -> Vec<Program> {
    let folder = folder().join(language);
    let mut paths: Vec<PathBuf> = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let extensions = binaries::language(language).extensions;
    paths
        .iter()
        .map(|path| read(language, &extensions, path))
        .collect()
}

/// The folder of the corpus.
pub fn folder() -> PathBuf {
    binaries::repository().join("crates/e2e/corpus")
}

fn read(language: &str, extensions: &[String], path: &Path) -> Program {
    let extension = path.extension().unwrap_or_default().to_str().unwrap();
    assert!(
        extensions.iter().any(|known| known == extension),
        "{} has no file name extension of {language}",
        path.display()
    );
    let code =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let front = toml::from_str(&front_matter(&code))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Program {
        name: format!("{language}/{}", path.file_name().unwrap().to_str().unwrap()),
        code,
        front,
        language: language.to_owned(),
    }
}

/// The text after `corpus:` of each such comment line, joined to one TOML document.
fn front_matter(code: &str) -> String {
    code.trim_start_matches('\u{feff}')
        .lines()
        .filter_map(|line| {
            let text = line.strip_prefix('#').or_else(|| line.strip_prefix("//"))?;
            text.strip_prefix(" corpus: ")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(code: &str) -> FrontMatter {
        toml::from_str(&front_matter(code)).unwrap()
    }

    #[test]
    fn a_program_without_front_matter_exits_with_zero() {
        let front = parsed("print('# corpus: exit_code = 1')\n");

        assert_eq!(front.end(), (Cause::Exit, Some(0), None));
        assert!(front.args.is_empty() && front.stdin.0.is_empty());
    }

    #[test]
    fn comments_of_either_kind_are_one_document() {
        let front = parsed(
            "\u{feff}// corpus: args = [\"a\", \"b c\"]\r\nint main;\n# corpus: stdin = { base64 = \"/w==\" }\n",
        );

        assert_eq!(front.args, ["a", "b c"]);
        assert_eq!(front.stdin.0, [0xff]);
    }

    #[test]
    fn a_signal_leaves_no_exit_code() {
        let front = parsed("# corpus: signal = 11\n");

        assert_eq!(front.end(), (Cause::Signal, None, Some(11)));
    }

    #[test]
    fn a_key_that_does_not_exist_is_an_error() {
        let text = front_matter("# corpus: argv = []\n");

        assert!(toml::from_str::<FrontMatter>(&text).is_err());
    }
}
