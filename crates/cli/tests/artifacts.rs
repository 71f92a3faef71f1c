//! Artifacts are saved below their folder, and nowhere else.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

use axum::Router;
use axum::extract;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cloude_protocol::api::Artifact;
use common::{FakeBackend, Script, exited, result};

/// The content of an artifact is its path. That of `broken` ends before its length.
async fn content(extract::Path((_, path)): extract::Path<(String, String)>) -> Response {
    if path != "broken" {
        return path.into_response();
    }
    common::breaks_after("half").into_response()
}

/// Runs a program that leaves these files.
fn run(folder: &Path, paths: &[&str], options: &[&str]) -> Output {
    let mut execution = exited(4);
    let artifacts = paths.iter().map(|path| Artifact {
        path: (*path).to_owned(),
        bytes: path.len() as u64,
        mode: 0o4755,
    });
    execution.artifacts = artifacts.collect();
    let routes = Router::new().route("/v1/executions/{id}/artifacts/{*path}", get(content));
    let backend = FakeBackend::routed(Script::Events(vec![result(execution)]), routes);
    let mut command = backend.cloude();
    command
        .args([
            "run",
            "-l",
            "python",
            "-c",
            "x",
            "-a",
            "**",
            "--artifact-dir",
        ])
        .arg(folder)
        .args(options);
    command.output().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn artifacts_are_saved_and_the_exit_code_is_the_programs() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let output = run(&folder, &["a", "out/ü #?%2e.csv"], &[]);
    assert_eq!(output.status.code(), Some(4), "{}", error(&output));
    assert_eq!(error(&output), "");
    let name = "out/ü #?%2e.csv";
    assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), name);
    let mode = std::fs::metadata(folder.join("a"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o4700, 0o700, "executable, not set-user-ID");
    assert_eq!(names(&folder), ["a", "out"], "no partial files");
}

#[test]
fn a_path_that_leaves_the_folder_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    let absolute = dir.path().join("absolute").display().to_string();
    for path in ["../out", "a/../../out", &absolute, "..", ""] {
        let output = run(&folder, &[path, "good"], &["--force"]);
        assert_eq!(output.status.code(), Some(125), "{path}");
        assert!(error(&output).contains("outside of the folder"), "{path}");
        assert_eq!(names(dir.path()), ["in"], "{path}");
        assert_eq!(names(&folder), ["good"], "{path}");
    }
}

#[test]
fn a_symbolic_link_below_the_folder_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, other) = (dir.path().join("in"), dir.path().join("other"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("victim"), "old").unwrap();
    symlink(&other, folder.join("link")).unwrap();
    symlink(other.join("victim"), folder.join("file")).unwrap();

    let output = run(&folder, &["link/new"], &["--force"]);
    assert_eq!(output.status.code(), Some(125), "{}", error(&output));
    let output = run(&folder, &["file"], &["--force"]);

    assert_eq!(output.status.code(), Some(4), "{}", error(&output));
    assert_eq!(names(&other), ["victim"]);
    assert_eq!(
        std::fs::read_to_string(other.join("victim")).unwrap(),
        "old"
    );
    assert_eq!(
        std::fs::read_to_string(folder.join("file")).unwrap(),
        "file"
    );
}

#[test]
fn existing_files_are_overwritten_with_force_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "old").unwrap();

    let output = run(dir.path(), &["a", "b"], &[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        error(&output).contains("overwrite it with --force"),
        "{}",
        error(&output)
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("a")).unwrap(),
        "old"
    );
    assert_eq!(std::fs::read_to_string(dir.path().join("b")).unwrap(), "b");

    let output = run(dir.path(), &["a"], &["--force"]);
    assert_eq!(output.status.code(), Some(4), "{}", error(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "a");
}

#[test]
fn a_download_that_breaks_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["broken"], &[]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(names(dir.path()), Vec::<String>::new());
}
