//! The hook of each language with a runner, against the interpreter itself: no agent, no VM. The test speaks the
//! hook's protocol on descriptor 63 (docs/warm.md) and compares with a plain start.
//!
//! `CLOUDE_HOOK_ROOT=DIR CLOUDE_HOOK_LANGUAGE=NAME` takes the interpreter of the root file system DIR, by chroot(2):
//! tools/tests/hook-versions tests each hook with several versions so.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cloude_protocol::language::{Language, WarmRunner};
use cloude_protocol::languages;

/// The descriptor on which a hook waits.
const CONTROL: i32 = 63;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages")
}

fn root() -> Option<PathBuf> {
    std::env::var_os("CLOUDE_HOOK_ROOT").map(PathBuf::from)
}

/// The languages that have a hook, or the one that is asked for.
fn hooked_languages() -> Vec<Language> {
    let wanted = std::env::var("CLOUDE_HOOK_LANGUAGE").ok();
    let names = languages::names(&folder()).unwrap();
    let languages: Vec<Language> = names
        .iter()
        .filter(|name| wanted.as_ref().is_none_or(|wanted| wanted == *name))
        .map(|name| languages::load(&folder(), name).unwrap())
        .filter(|language| runner(language).is_some())
        .collect();
    assert!(!languages.is_empty(), "no language with a hook: {wanted:?}");
    languages
}

fn runner(language: &Language) -> Option<&WarmRunner> {
    language.warm.as_ref()?.runner.as_ref()
}

/// The program that prints all that the hook has to leave as it is: `hook_test.EXT` beside the hook.
fn hook_test(language: &Language) -> String {
    let extension = Path::new(&language.file).extension().unwrap();
    let path = folder()
        .join(&language.name)
        .join("hook_test")
        .with_extension(extension);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program in a directory of its own, with the hook in another.
struct Program<'a> {
    language: &'a Language,
    args: &'a [&'a str],
    stdin: &'a str,
    work: tempfile::TempDir,
    hook: tempfile::TempDir,
}

impl<'a> Program<'a> {
    fn new(language: &'a Language, code: &str, args: &'a [&'a str], stdin: &'a str) -> Self {
        let base = root().unwrap_or_else(|| "/".into()).join("tmp");
        let work = tempfile::tempdir_in(&base).unwrap();
        let hook = tempfile::tempdir_in(&base).unwrap();
        std::fs::write(work.path().join(&language.file), code).unwrap();
        for (name, content) in &runner(language).unwrap().files {
            std::fs::write(hook.path().join(name), content).unwrap();
        }
        Program {
            language,
            args,
            stdin,
            work,
            hook,
        }
    }

    /// A path as the interpreter sees it.
    fn inside(&self, path: &Path) -> String {
        let path = match root() {
            Some(root) => Path::new("/").join(path.strip_prefix(root).unwrap()),
            None => path.to_owned(),
        };
        path.to_str().unwrap().to_owned()
    }

    /// In the order in which [`Command`] lays it out.
    fn environment(&self) -> BTreeMap<String, String> {
        let own = [("PATH", PATH), ("HOME", "/root"), ("MINE", "a=b")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        own.into_iter()
            .chain(self.language.run.env.clone())
            .collect()
    }

    fn command(&self, control: Option<&UnixStream>) -> Command {
        let argv = &self.language.run.command;
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .envs(self.environment());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let control = control.map(|stream| stream.as_raw_fd());
        let (root, work) = (root(), self.inside(self.work.path()));
        let enter = move || {
            if let Some(root) = &root {
                std::os::unix::fs::chroot(root)?;
            }
            std::env::set_current_dir(&work)?;
            if let Some(control) = control {
                nix::errno::Errno::result(copy_descriptor(control, CONTROL))?;
            }
            Ok(())
        };
        // SAFETY: chroot(2), chdir(2) and dup2(2) are async-signal-safe; the paths are short enough that the standard
        // library makes C strings of them without allocating.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Starts it plainly, with its arguments.
    fn plain(&self) -> Output {
        let mut command = self.command(None);
        command.args(self.args);
        self.finish(spawn(&mut command, self.language))
    }

    /// Starts the interpreter with the hook, and gives the socket when the hook waits.
    fn waiting(&self) -> (Child, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = self.command(Some(&theirs));
        let dir = self.inside(self.hook.path());
        for (name, value) in &runner(self.language).unwrap().env {
            command.env(name, value.replace("{dir}", &dir));
        }
        let child = spawn(&mut command, self.language);
        drop((command, theirs));
        let mut byte = [0];
        (&ours).read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("{}: the hook does not wait: {error}", self.language.name)
        });
        (child, ours)
    }

    /// Has the hook wait, and then gives it the program.
    fn hooked(&self) -> Output {
        let (child, mut control) = self.waiting();
        let mut fields = vec![self.inside(self.work.path()), self.args.len().to_string()];
        fields.extend(self.args.iter().map(|&arg| arg.to_owned()));
        let environment = self.environment().into_iter();
        fields.extend(environment.map(|(name, value)| format!("{name}={value}")));
        let message: String = fields.iter().map(|field| format!("{field}\0")).collect();
        control.write_all(message.as_bytes()).unwrap();
        control.shutdown(Shutdown::Write).unwrap();
        self.finish(child)
    }

    fn finish(&self, mut child: Child) -> Output {
        child
            .stdin
            .take()
            .unwrap()
            .write_all(self.stdin.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// Exit code, standard output and standard error, without the names of the directories.
    fn shown(&self, output: &Output) -> (Option<i32>, String, String) {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.replace(&self.inside(self.work.path()), "WORK")
        };
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

/// dup2(2) without the flag that closes the copy at execve(2).
fn copy_descriptor(from: i32, to: i32) -> i32 {
    // SAFETY: it only copies a descriptor; both numbers may be any.
    unsafe { libc::dup2(from, to) }
}

fn spawn(command: &mut Command, language: &Language) -> Child {
    command.spawn().unwrap_or_else(|error| {
        panic!(
            "starting the interpreter of `{}`: {error}; run tools/setup",
            language.name
        )
    })
}

#[test]
fn a_hooked_program_shows_the_same_as_a_plain_one() {
    for language in hooked_languages() {
        let args = ["one", "two words", "é", ""];
        let program = Program::new(&language, &hook_test(&language), &args, "3\n4\n");
        let (plain, hooked) = (program.plain(), program.hooked());
        let expected = program.shown(&plain);
        assert!(expected.1.contains("at exit"), "{expected:?}");
        assert_eq!(program.shown(&hooked), expected, "{}", language.name);
    }
}

#[test]
fn the_self_test_passes_through_the_hook() {
    for language in hooked_languages() {
        let test = &language.self_test;
        let args: Vec<&str> = test.args.iter().map(String::as_str).collect();
        let program = Program::new(&language, &test.code, &args, &test.stdin);
        let output = program.hooked();
        let (code, stdout, stderr) = program.shown(&output);
        assert_eq!(
            (code, stdout),
            (Some(test.exit_code), test.stdout.clone()),
            "{stderr}"
        );
    }
}

#[test]
fn a_hook_without_a_program_ends_with_127() {
    for language in hooked_languages() {
        let program = Program::new(&language, "", &[], "");
        let (child, control) = program.waiting();
        drop(control);
        let (code, stdout, stderr) = program.shown(&program.finish(child));
        assert_eq!((code, stdout.as_str()), (Some(127), ""), "{stderr}");
    }
}

#[test]
fn a_hook_leaves_no_file_behind() {
    for language in hooked_languages() {
        let program = Program::new(&language, "", &[], "");
        program.hooked();
        let left: Vec<_> = std::fs::read_dir(program.work.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{}: {left:?}", language.name);
    }
}
