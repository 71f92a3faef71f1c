//! The description of a language: `languages/NAME/language.toml` with the files that it names in place of their names
//! ([`crate::languages`] reads it). Adding a language is adding a folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One language.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// The name of the language's folder, lower case; not a key of `language.toml`.
    pub name: String,
    /// The name of its compiler or interpreter before a version number: `Node.js`. The language's name if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The version that its images must have: `3.13` stands for 3.13 and all of 3.13.x. Any version if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Other names that clients may use, lower case.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// File name extensions, without the dot. A client derives the language from them.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// The code's file name in the work directory. A client's file with another of `extensions` gets that extension.
    pub file: String,
    /// The language for clients of Judge0, which cannot use it if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge0: Option<Judge0>,
    /// The sources of its image.
    pub image: Image,
    /// Compiles the code; none for an interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<Command>,
    /// Runs the program, whose arguments are appended.
    pub run: Command,
    /// The VM, unless a request sets another one.
    #[serde(default)]
    pub machine: Machine,
    /// Names in the code that decide the file's name and the run command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Names>,
    /// A program that shows that the language works.
    pub self_test: SelfTest,
    /// The warm-up of a template; if none, the self-test is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
}

impl Language {
    /// The language with a version, as people read it: `Python 3.13.5`.
    pub fn with_version(&self, version: &str) -> String {
        format!("{} {version}", self.title.as_ref().unwrap_or(&self.name))
    }

    /// The environment of both stages of an execution: that of the compile command, overridden by that of the run
    /// command.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        if let Some(compile) = &self.compile {
            env.extend(compile.env.clone());
        }
        env.extend(self.run.env.clone());
        env
    }

    /// The parts of the language that a template of it depends on beside its image and machine. A change of anything
    /// else, such as an alias, leaves templates valid; so does a comment in `language.toml`. The files of a language
    /// count byte by byte, comments included: where a comment ends is the interpreter's knowledge.
    pub fn template_inputs(&self) -> impl Serialize + '_ {
        #[derive(Serialize)]
        struct TemplateInputs<'a> {
            name: &'a str,
            file: &'a str,
            compile: Option<&'a Command>,
            run: &'a Command,
            self_test: (&'a str, &'a str, &'a [String]),
            warm: Option<&'a Warm>,
        }
        let test = &self.self_test;
        TemplateInputs {
            name: &self.name,
            file: &self.file,
            compile: self.compile.as_ref(),
            run: &self.run,
            self_test: (&test.code, &test.stdin, &test.args),
            warm: self.warm.as_ref(),
        }
    }
}

/// A language in the list of Judge0.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Judge0 {
    /// Its name there, before the compiler or interpreter: `C++` in `C++ (G++ 14.2.0)`.
    pub name: String,
    /// Its ids: all versions of it that Judge0 has. From 1000 on those of languages that Judge0 does not have.
    pub ids: Vec<u32>,
}

/// Whether the version `found` is `wanted`, or one of its releases: 3.13.5 is of 3.13, 3.130 is not.
pub fn is_of(found: &str, wanted: &str) -> bool {
    found
        .strip_prefix(wanted)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The warm-up of a template: work that its forks then need not do.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Warm {
    /// Commands that run as root, in order; each must exit 0.
    pub prepare: Vec<Vec<String>>,
    /// Executes the self-test, so that the files that it reads are in the page cache.
    pub rehearse: bool,
    /// An interpreter that waits for a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<WarmRunner>,
}

impl Default for Warm {
    fn default() -> Self {
        Warm {
            prepare: Vec::new(),
            rehearse: true,
            runner: None,
        }
    }
}

/// Starts the run command before there is a program. A hook stops the interpreter during its start-up until it
/// receives one ([`crate::agent::Runner`]).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct WarmRunner {
    /// Variables that make the interpreter load the hook. `{dir}` stands for the directory of `files`.
    pub env: BTreeMap<String, String>,
    /// Variables that the interpreter reads at its start: names, or prefixes that end in `*`. A request that sets
    /// one gets a new interpreter.
    pub cold_env: Vec<String>,
    /// The hook: content by path. In `language.toml` a list of files of the language's folder.
    pub files: BTreeMap<String, String>,
    /// The probe: a program that waits for a second, prints a line, and waits again. The pages that it has touched
    /// when it prints are the template's working set, which a fork receives at its resume.
    pub probe: String,
}

/// Two sources of one image: a reference, and Debian packages for when its registry is unreachable, or without one.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `registry/name:tag`, `registry/name@sha256:…`, or another source that `cloude-initramfs build` takes, such
    /// as `oci:PATH`; a relative path begins at the language's folder. The image is the packages if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The environment variable in which the image of `reference` has its exact version, such as `PYTHON_VERSION`.
    /// If none, and for an image without it, the version is that of the first Debian package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_variable: Option<String>,
    /// Debian packages with the same tools.
    pub debian: Debian,
}

/// A Debian installation of the named packages and their dependencies.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// The release, such as `bookworm`.
    pub suite: String,
    /// Packages. The first one has the language's version.
    pub packages: Vec<String>,
    /// Added to the environment of programs.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A command line in the work directory.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Commands that replace it for files with these extensions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_extension: BTreeMap<String, Vec<String>>,
    /// Environment for this command only.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The wall-clock limit in milliseconds if the request sets none; the server's default if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_time_ms: Option<u64>,
}

/// How names are found in the code: regular expressions of the `regex` crate over the code without comments and
/// literals (those of C, and text blocks). The file is named after a public declaration, and the declaration with an
/// entry is run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// A declaration outside of braces. The group `name` is its name, and the group `public` takes part in the match
    /// where it is public.
    pub declaration: String,
    /// In the body of a declaration, outside of inner braces: it can be run.
    pub entry: String,
    /// The first group goes before the name of what is run, with a dot.
    pub package: String,
    /// The word of the run command that stands for the name of what is run.
    pub main: String,
}

/// The shape of the VM.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// 1 to 8; the server's default if none.
    pub vcpus: Option<u8>,
    /// Guest memory in MiB, the file system included; the server's default if none.
    pub memory_mib: Option<u64>,
}

/// A program that prints values from stdin, its arguments and a file that it wrote, and exits with a code that no
/// other language's test has.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// The program.
    pub code: String,
    /// Its standard input.
    pub stdin: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The exact standard output that it must print.
    pub stdout: String,
    /// The exit code that it must have.
    pub exit_code: i32,
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn a_version_stands_for_its_releases_alone() {
        for (found, wanted, is) in [
            ("3.13.5", "3.13", true),
            ("3.13", "3.13", true),
            ("25.0.5+8", "25", true),
            ("3.130.1", "3.13", false),
            ("3.11.2", "3.13", false),
            ("3", "3.13", false),
        ] {
            assert_eq!(is_of(found, wanted), is, "{found} of {wanted}");
        }
    }
}
