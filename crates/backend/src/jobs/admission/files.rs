//! The program of a request, and its further files.

use std::collections::HashSet;

use cloude_engine::languages::{Source, check_path};
use cloude_protocol::Data;
use cloude_protocol::agent::File;
use cloude_protocol::api::ExecutionRequest;
use cloude_protocol::language::Language;

use super::texts::shown;
use crate::jobs::refused::{Refused, ensure};

/// The most files of one request, the code included.
const MAX_FILES: usize = 1000;

/// The program of a request: `code`, or the file that `entrypoint` names.
pub enum Program<'a> {
    Code(&'a str),
    File(&'a File),
}

/// The program's commands, and all files in the order in which the agent writes them.
pub struct Sources {
    pub compile: Option<Vec<String>>,
    pub run: Vec<String>,
    pub files: Vec<File>,
    /// Path of the program.
    pub path: String,
}

/// Finds the program of a request.
pub fn program(request: &ExecutionRequest) -> Result<Program<'_>, Refused> {
    let Some(path) = &request.entrypoint else {
        let is_empty = request.code.trim().is_empty();
        return match is_empty {
            true => Err(Refused::EmptyCode),
            false => Ok(Program::Code(&request.code)),
        };
    };
    ensure(request.code.is_empty(), || Refused::TwoPrograms)?;
    let file = request.files.iter().find(|file| file.path == *path);
    file.map(Program::File)
        .ok_or_else(|| Refused::NoEntrypoint { path: shown(path) })
}

/// Checks the files of a request, and names the program's.
pub fn source(
    request: &ExecutionRequest,
    program: Program<'_>,
    language: &Language,
) -> Result<Sources, Refused> {
    let invalid = |reason| Refused::LanguageFile { reason };
    match program {
        Program::Code(code) => {
            let source =
                Source::of(language, code, request.file_name.as_deref()).map_err(invalid)?;
            check(request, &source.file)?;
            let code = File {
                path: source.file.clone(),
                content: code.into(),
                mode: None,
            };
            let others = request.files.iter().cloned();
            Ok(Sources {
                compile: source.compile,
                run: source.run,
                files: std::iter::once(code).chain(others).collect(),
                path: source.file,
            })
        }
        Program::File(file) => {
            let Data(bytes) = &file.content;
            let source = Source::of(language, &String::from_utf8_lossy(bytes), Some(&file.path));
            let source = source.map_err(invalid)?;
            check(request, &file.path)?;
            // The language's commands name the program where the client has put it.
            let renamed = |words: Vec<String>| {
                let renamed = words.into_iter().map(|word| match word == source.file {
                    true => file.path.clone(),
                    false => word,
                });
                renamed.collect::<Vec<_>>()
            };
            Ok(Sources {
                compile: source.compile.map(renamed),
                run: renamed(source.run),
                files: request.files.clone(),
                path: file.path.clone(),
            })
        }
    }
}

fn check(request: &ExecutionRequest, program: &str) -> Result<(), Refused> {
    ensure(request.files.len() < MAX_FILES, || Refused::TooManyFiles {
        count: request.files.len(),
        limit: MAX_FILES - 1,
    })?;
    check_path(program).map_err(|reason| Refused::ProgramPath {
        path: shown(program),
        reason,
    })?;
    let mut seen = HashSet::new();
    for (index, file) in request.files.iter().enumerate() {
        let path = || shown(&file.path);
        check_path(&file.path).map_err(|reason| Refused::FilePath {
            index,
            path: path(),
            reason,
        })?;
        ensure(seen.insert(file.path.as_str()), || Refused::FileTwice {
            index,
            path: path(),
        })?;
        if let Some(mode) = file.mode.filter(|mode| *mode > 0o7777) {
            let path = path();
            return Err(Refused::FileMode { index, path, mode });
        }
    }
    if request.entrypoint.is_none() {
        ensure(seen.insert(program), || Refused::ProgramTwice {
            path: shown(program),
        })?;
    }
    check_folders(&seen, program)
}

/// No path may be both a file and the folder of another file.
fn check_folders(files: &HashSet<&str>, program: &str) -> Result<(), Refused> {
    for path in files {
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = parents.find(|parent| files.contains(parent)) {
            let (is_program, parent, path) = (parent == program, shown(parent), shown(path));
            return Err(match is_program {
                true => Refused::ProgramIsFolder { parent, path },
                false => Refused::FileIsFolder { parent, path },
            });
        }
    }
    Ok(())
}
