//! Reads languages: `DIR/NAME/language.toml` and the files that it names.
//!
//! The folder's name is the language's name. Wherever `language.toml` may have a text, it may have
//! `{ file = "NAME" }` instead: the content of a file of the same folder. `warm.runner.files` lists such files by
//! name.

use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use crate::language::Language;

/// The description of a language, in the language's folder.
pub const FILE_NAME: &str = "language.toml";

/// Why languages could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// A folder or a file could not be read.
    #[error("reading `{path}`: {source}")]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// `language.toml` is not TOML, or has a key or value that a language does not have.
    #[error("`{path}` is not a valid language file: {reason}")]
    Parse {
        /// The `language.toml`.
        path: PathBuf,
        /// The key, and what is expected there.
        reason: String,
    },
    /// `language.toml` names a file that cannot be read.
    #[error("`{path}` names the file `{file}`: {reason}")]
    File {
        /// The `language.toml`.
        path: PathBuf,
        /// The file's name as it is written there.
        file: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// A single file where a folder is expected, as earlier versions had it.
    #[error(
        "`{0}`: a language is a folder now: move this file to `NAME/language.toml`, and take `name` out of it"
    )]
    NotAFolder(PathBuf),
    /// No language has this name.
    #[error("there is no language `{name}` in `{dir}`; there are {}", known.join(", "))]
    Unknown {
        /// The name or alias.
        name: String,
        /// The folder of languages.
        dir: PathBuf,
        /// All names.
        known: Vec<String>,
    },
}

/// The names of the languages in a folder, sorted: its folders with a `language.toml`.
pub fn names(dir: &Path) -> Result<Vec<String>, LanguageError> {
    let read = |source| LanguageError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in dir.read_dir().map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|ending| ending == "toml") && path.is_file() {
            return Err(LanguageError::NotAFolder(path));
        }
        if path.join(FILE_NAME).is_file()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads one language by its name.
pub fn load(dir: &Path, name: &str) -> Result<Language, LanguageError> {
    let folder = dir.join(name);
    let path = folder.join(FILE_NAME);
    let text = std::fs::read_to_string(&path).map_err(|source| LanguageError::Read {
        path: path.clone(),
        source,
    })?;
    parse(name, &path, &text, |file| read_file(&folder, file))
}

/// The language of a `language.toml`. `path` is for messages; `read` returns the content of a file of the folder.
fn parse(
    name: &str,
    path: &Path,
    text: &str,
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<Language, LanguageError> {
    let invalid = |reason: String| LanguageError::Parse {
        path: path.to_owned(),
        reason,
    };
    let mut table: Table = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
    if table.contains_key("name") {
        let reason = "`name` is not a key: the folder's name is the language's name";
        return Err(invalid(reason.to_owned()));
    }
    table.insert("name".to_owned(), name.into());
    let read = |file: &str| {
        read(file).map_err(|reason| LanguageError::File {
            path: path.to_owned(),
            file: file.to_owned(),
            reason,
        })
    };
    insert_hook(&mut table, &read)?;
    for (_, value) in &mut table {
        insert_files(value, &read)?;
    }
    Language::deserialize(table).map_err(|error| invalid(error.to_string().trim_end().to_owned()))
}

/// The language of a `language.toml` in a folder where every name is an empty file, for `fuzz/targets/language.rs`.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn parse_text(text: &str) -> Result<Language, LanguageError> {
    parse("fuzzed", Path::new(FILE_NAME), text, |_| Ok(String::new()))
}

/// Reads one language by its name or an alias, in any case.
pub fn find(dir: &Path, name: &str) -> Result<Language, LanguageError> {
    let known = names(dir)?;
    let wanted = name.to_lowercase();
    if known.contains(&wanted) {
        return load(dir, &wanted);
    }
    for candidate in &known {
        let language = load(dir, candidate)?;
        if language
            .aliases
            .iter()
            .any(|alias| alias.to_lowercase() == wanted)
        {
            return Ok(language);
        }
    }
    Err(LanguageError::Unknown {
        name: name.to_owned(),
        dir: dir.to_owned(),
        known,
    })
}

/// `warm.runner.files`: a list of names becomes a table of contents by name.
fn insert_hook<E>(table: &mut Table, read: &impl Fn(&str) -> Result<String, E>) -> Result<(), E> {
    let runner = table
        .get_mut("warm")
        .and_then(|warm| warm.get_mut("runner"));
    let Some(Value::Array(files)) = runner.and_then(|runner| runner.get_mut("files")) else {
        return Ok(());
    };
    let mut contents = Table::new();
    // An entry that is not a string stays as it is, and is refused as a content.
    for (index, file) in files.iter().enumerate() {
        match file {
            Value::String(name) => contents.insert(name.clone(), read(name)?.into()),
            other => contents.insert(index.to_string(), other.clone()),
        };
    }
    table["warm"]["runner"]["files"] = contents.into();
    Ok(())
}

/// Replaces each `{ file = "NAME" }` by the content of the file.
fn insert_files<E>(value: &mut Value, read: &impl Fn(&str) -> Result<String, E>) -> Result<(), E> {
    match value {
        Value::Table(table) => {
            if let (1, Some(Value::String(name))) = (table.len(), table.get("file")) {
                *value = read(name)?.into();
                return Ok(());
            }
            table
                .iter_mut()
                .try_for_each(|(_, value)| insert_files(value, read))
        }
        Value::Array(values) => values
            .iter_mut()
            .try_for_each(|value| insert_files(value, read)),
        _ => Ok(()),
    }
}

/// The content of a regular file in `folder`.
fn read_file(folder: &Path, name: &str) -> Result<String, String> {
    let inside = Path::new(name)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if name.is_empty() || !inside {
        return Err("only a file of the language's folder can be named".to_owned());
    }
    let text = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no such file in `{}`", folder.display()),
        _ => error.to_string(),
    };
    let (folder, path) = (
        folder.canonicalize().map_err(text)?,
        folder.join(name).canonicalize().map_err(text)?,
    );
    if !path.starts_with(&folder) {
        return Err(format!(
            "it is a link out of the language's folder, to `{}`",
            path.display()
        ));
    }
    // Opening a FIFO would block.
    if !path.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    std::fs::read_to_string(&path).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUBY: &str = r#"
        aliases = ["rb"]
        file = "main.rb"
        image = { reference = "r", debian = { suite = "s", packages = ["ruby"] } }
        run = { command = ["ruby", "main.rb"] }
        self_test = { code = { file = "self_test.rb" }, stdin = "", args = [], stdout = "", exit_code = 3 }
    "#;

    /// A folder of languages with one, of these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("ruby")).unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join("ruby").join(name), content).unwrap();
        }
        dir
    }

    fn error(toml: &str) -> String {
        let dir = folder(&[(FILE_NAME, toml), ("self_test.rb", "")]);
        load(dir.path(), "ruby").unwrap_err().to_string()
    }

    #[test]
    fn a_folder_is_a_language() {
        let dir = folder(&[(FILE_NAME, RUBY), ("self_test.rb", "exit 3\n")]);
        std::fs::create_dir(dir.path().join("no-language")).unwrap();

        assert_eq!(names(dir.path()).unwrap(), ["ruby"]);
        let language = find(dir.path(), "RB").unwrap();
        assert_eq!(language.name, "ruby");
        assert_eq!(language.self_test.code, "exit 3\n");
    }

    #[test]
    fn hook_and_arguments_are_files() {
        let warm = r#"
            [warm]
            prepare = [["ruby", "-e", { file = "prepare.rb" }]]
            [warm.runner]
            files = ["hook.rb"]
            probe = { file = "probe.rb" }
        "#;
        let toml = format!("{RUBY}{warm}");
        let dir = folder(&[
            (FILE_NAME, toml.as_str()),
            ("self_test.rb", ""),
            ("prepare.rb", "a"),
            ("hook.rb", "b"),
            ("probe.rb", "c"),
        ]);

        let warm = load(dir.path(), "ruby").unwrap().warm.unwrap();
        assert_eq!(warm.prepare, [["ruby", "-e", "a"]]);
        let runner = warm.runner.unwrap();
        assert_eq!(runner.files["hook.rb"], "b");
        assert_eq!(runner.probe, "c");
    }

    /// The inputs of a template of the language with these files.
    fn inputs(toml: &str, test: &str) -> serde_json::Value {
        let dir = folder(&[(FILE_NAME, toml), ("self_test.rb", test)]);
        serde_json::to_value(load(dir.path(), "ruby").unwrap().template_inputs()).unwrap()
    }

    #[test]
    fn an_alias_or_a_comment_leaves_templates_valid() {
        let first = inputs(RUBY, "exit 3");
        assert_eq!(
            first,
            inputs(&RUBY.replace("[\"rb\"]", "[\"x\"] # why"), "exit 3")
        );
    }

    #[test]
    fn a_command_or_a_file_changes_templates() {
        let first = inputs(RUBY, "exit 3");
        assert_ne!(
            first,
            inputs(&RUBY.replace("[\"ruby\", ", "[\"jruby\", "), "exit 3")
        );
        assert_ne!(first, inputs(RUBY, "exit 4"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = folder(&[(FILE_NAME, RUBY)]);
        let error = load(dir.path(), "ruby").unwrap_err().to_string();
        assert!(
            error.contains("language.toml` names the file `self_test.rb`"),
            "{error}"
        );
        assert!(error.contains("there is no such file"), "{error}");
    }

    #[test]
    fn a_file_outside_of_the_folder_is_refused() {
        for name in ["../secret", "/etc/passwd", "a/../../b", "", "."] {
            let error = error(&RUBY.replace("self_test.rb", name));
            assert!(
                error.contains("only a file of the language's folder"),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused() {
        let dir = folder(&[(FILE_NAME, RUBY)]);
        let link = dir.path().join("ruby/self_test.rb");
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
        let error = load(dir.path(), "ruby").unwrap_err().to_string();
        assert!(
            error.contains("a link out of the language's folder"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_key_or_value_names_file_and_key() {
        for (toml, key) in [
            (format!("nmae = 'x'\n{RUBY}"), "nmae"),
            (RUBY.replace("[\"rb\"]", "3"), "aliases"),
            (RUBY.replace("code = ", "coed = "), "coed"),
            (format!("{RUBY}[warm.runner]\nfiles = [3]\n"), "files"),
            (format!("name = 'python'\n{RUBY}"), "`name`"),
            ("file = ".to_owned(), "line 1"),
        ] {
            let error = error(&toml);
            assert!(
                error.contains("ruby/language.toml") && error.contains(key),
                "{key}: {error}"
            );
        }
    }

    #[test]
    fn a_single_file_names_the_folder_to_make() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ruby.toml"), RUBY).unwrap();
        let error = names(dir.path()).unwrap_err().to_string();
        assert!(error.contains("NAME/language.toml"), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let dir = folder(&[(FILE_NAME, RUBY), ("self_test.rb", "")]);
        let error = find(dir.path(), "cobol").unwrap_err().to_string();
        assert!(
            error.contains("`cobol`") && error.contains("ruby"),
            "{error}"
        );
    }
}
