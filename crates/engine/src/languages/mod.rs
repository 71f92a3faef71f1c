//! The languages of the server, by name and alias.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloude_protocol::language::Language;
use cloude_protocol::languages::{self, LanguageError};

mod path;
mod source;

pub use path::check_path;
pub use source::Source;

/// Why the languages could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LanguagesError {
    /// The folder, or a file of a language, is not what it should be.
    #[error("{0}; the folder of languages is set by `languages` (LANGUAGES_CONFIG_PATH)")]
    Read(#[from] LanguageError),
    /// A language's values cannot be used.
    #[error("the language `{name}`: {reason}")]
    Invalid {
        /// The language.
        name: String,
        /// The key, and what it must be.
        reason: String,
    },
    /// The folder has none.
    #[error(
        "`{0}` holds no language; set `languages` (LANGUAGES_CONFIG_PATH) to a folder of NAME/language.toml"
    )]
    None(PathBuf),
}

/// All languages, by name and alias.
#[derive(Clone, Debug)]
pub struct Languages {
    by_name: BTreeMap<String, Arc<Language>>,
    names: BTreeMap<String, String>,
    /// Names of the languages by their ids in Judge0.
    judge0: BTreeMap<u32, String>,
}

impl Languages {
    /// Reads every language of a folder.
    pub fn load(dir: &Path) -> Result<Self, LanguagesError> {
        let mut languages = Languages {
            by_name: BTreeMap::new(),
            names: BTreeMap::new(),
            judge0: BTreeMap::new(),
        };
        for name in languages::names(dir)? {
            let language = languages::load(dir, &name)?;
            languages
                .add(language)
                .map_err(|reason| LanguagesError::Invalid { name, reason })?;
        }
        if languages.by_name.is_empty() {
            return Err(LanguagesError::None(dir.to_owned()));
        }
        Ok(languages)
    }

    fn add(&mut self, language: Language) -> Result<(), String> {
        check(&language)?;
        for name in std::iter::once(&language.name).chain(&language.aliases) {
            let key = name.to_lowercase();
            if let Some(other) = self.names.insert(key, language.name.clone()) {
                return Err(format!("`{name}` is a name of `{other}` already"));
            }
        }
        for id in language.judge0.iter().flat_map(|judge0| &judge0.ids) {
            if let Some(other) = self.judge0.insert(*id, language.name.clone()) {
                return Err(format!("`judge0.ids`: {id} is an id of `{other}` already"));
            }
        }
        self.by_name
            .insert(language.name.clone(), Arc::new(language));
        Ok(())
    }

    /// With the wall-clock limits of a host that is `factor` times as slow as hardware
    /// (`time_factor` of the server's configuration).
    pub fn in_host_time(mut self, factor: u32) -> Self {
        for language in self.by_name.values_mut() {
            let language = Arc::make_mut(language);
            let stages = language.compile.iter_mut().chain([&mut language.run]);
            for time in stages.filter_map(|command| command.wall_time_ms.as_mut()) {
                *time = time.saturating_mul(u64::from(factor));
            }
        }
        self
    }

    /// The language of that name or alias, in any case.
    pub fn find(&self, name: &str) -> Option<&Arc<Language>> {
        self.by_name
            .get(self.names.get(&name.trim().to_lowercase())?)
    }

    /// The language with this id in Judge0.
    pub fn by_judge0_id(&self, id: u32) -> Option<&Arc<Language>> {
        self.by_name.get(self.judge0.get(&id)?)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Language>> {
        self.by_name.values()
    }

    /// Their names, for a message.
    pub fn supported(&self) -> String {
        self.by_name
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A name becomes a file name, and both commands need a program.
fn check(language: &Language) -> Result<(), String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-+.".contains(c);
    if language.name.is_empty()
        || language.name.starts_with('.')
        || !language.name.chars().all(valid)
    {
        return Err(format!(
            "the folder's name `{}` is the language's; use lower-case letters and digits",
            language.name
        ));
    }
    if language.run.command.is_empty() {
        return Err("`run.command` is empty".into());
    }
    if language
        .compile
        .as_ref()
        .is_some_and(|compile| compile.command.is_empty())
    {
        return Err("`compile.command` is empty; leave `[compile]` out".into());
    }
    if language
        .machine
        .vcpus
        .is_some_and(|vcpus| !(1..=8).contains(&vcpus))
    {
        return Err("`machine.vcpus` must be 1 to 8".into());
    }
    if let Some(names) = &language.names {
        source::check(names)?;
    }
    check_path(&language.file).map_err(|reason| format!("`file`: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Languages {
        Languages::load(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../languages"
        )))
        .unwrap()
    }

    #[test]
    fn aliases_in_any_case_find_their_language() {
        let languages = ours();
        let table = [
            ("py", "python"),
            ("Python", "python"),
            ("JS", "node"),
            ("javascript", "node"),
            ("rs", "rust"),
            ("golang", "go"),
            ("C++", "cpp"),
            ("c", "c"),
            ("BASH", "bash"),
        ];
        for (name, expected) in table {
            assert_eq!(
                languages.find(name).map(|l| l.name.as_str()),
                Some(expected),
                "{name}"
            );
        }
        assert!(languages.find("cobol").is_none());
        assert!(languages.find("").is_none());
    }

    #[test]
    fn a_slow_host_multiplies_the_limits_of_languages() {
        let text = r#"
            file = "f"
            image = { reference = "r", debian = { suite = "s", packages = [] } }
            run = { command = ["true"] }
            compile = { command = ["true"], wall_time_ms = 100 }
            self_test = { code = "", stdin = "", args = [], stdout = "", exit_code = 0 }
        "#;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("l")).unwrap();
        std::fs::write(dir.path().join("l/language.toml"), text).unwrap();
        let languages = Languages::load(dir.path()).unwrap().in_host_time(20);
        let language = languages.find("l").unwrap();
        let compile = language.compile.as_ref().unwrap();
        assert_eq!(compile.wall_time_ms, Some(2000));
        assert_eq!(language.run.wall_time_ms, None, "the server's default");
    }

    #[test]
    fn two_files_with_one_alias_are_refused() {
        let mut languages = ours();
        let mut language = languages
            .find("python")
            .map(|l| Language::clone(l))
            .unwrap();
        language.name = "snake".into();
        assert!(languages.add(language).unwrap_err().contains("python"));
    }

    #[test]
    fn every_language_has_ids_of_judge0_that_no_other_has() {
        let mut languages = ours();
        for language in languages.iter() {
            let judge0 = language.judge0.as_ref();
            assert!(judge0.is_some_and(|judge0| !judge0.ids.is_empty()));
        }
        assert_eq!(languages.by_judge0_id(71).unwrap().name, "python");
        assert_eq!(languages.by_judge0_id(54).unwrap().name, "cpp");
        assert!(languages.by_judge0_id(89).is_none());
        let mut language = Language::clone(languages.find("ruby").unwrap());
        (language.name, language.aliases) = ("gem".into(), Vec::new());
        let error = languages.add(language).unwrap_err();
        assert!(error.contains("72 is an id of `ruby`"), "{error}");
    }

    #[test]
    fn a_folder_without_languages_names_the_setting() {
        let dir = tempfile::tempdir().unwrap();
        let error = Languages::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("LANGUAGES_CONFIG_PATH"), "{error}");
    }
}
