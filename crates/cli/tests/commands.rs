//! The other commands.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use axum::routing::get;
use axum::{Json, Router};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{ExecutionEvent, Installation, InstalledKernel};
use common::{FakeBackend, Script, cloude, exited};

fn stdout_of(command: &mut assert_cmd::Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn go_prints_the_id_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.py");
    std::fs::write(&path, "print(3)").unwrap();
    let backend = FakeBackend::ending(exited(0));
    let text = stdout_of(
        backend
            .cloude()
            .args(["go", "--language", "Py", "--file"])
            .arg(&path),
    );
    assert_eq!(text, "job-1\n");
    let runs = backend.shared.runs.lock().unwrap();
    assert_eq!(
        (runs[0].language.as_str(), runs[0].code.as_str()),
        ("Py", "print(3)")
    );
}

#[test]
fn status_shows_the_fields_and_the_output() {
    let backend = FakeBackend::ending(exited(0));
    let text = stdout_of(backend.cloude().args(["status", "job-1"]));
    assert_eq!(
        text,
        "id         job-1\nstatus     done\nlanguage   python\nexit code  3\nstdout\nout\nstderr\nerr\n"
    );
}

#[test]
fn status_as_json_is_the_backends_answer() {
    let backend = FakeBackend::ending(exited(0));
    let text = stdout_of(backend.cloude().args(["status", "job-1", "--json"]));
    let expected = r#"{"id":"job-1","status":"done","language":"python","exit_code":3,"stdout":"out\n","stderr":"err"}"#;
    assert_eq!(text, format!("{expected}\n"));
}

#[test]
fn cancel_prints_cancelled() {
    let mut execution = exited(0);
    execution.cause = Cause::Cancelled;
    let backend = FakeBackend::ending(execution);
    let text = stdout_of(backend.cloude().args(["cancel", "job-1"]));
    assert_eq!(text, "cancelled\n");
}

#[test]
fn cancel_of_an_ended_program_prints_that_it_ended() {
    let backend = FakeBackend::ending(exited(0));
    let text = stdout_of(backend.cloude().args(["cancel", "job-1"]));
    assert_eq!(
        text,
        "already ended: `cloude status job-1` shows its output\n"
    );
}

#[test]
fn cancel_of_an_unknown_id_is_a_usage_error() {
    let backend = FakeBackend::ending(exited(0));
    let output = backend.cloude().args(["cancel", "job-2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no execution `job-2`"), "{error}");
}

#[test]
fn languages_are_a_table() {
    let backend = FakeBackend::ending(exited(0));
    let text = stdout_of(backend.cloude().arg("languages"));
    assert_eq!(
        text,
        "LANGUAGE  VERSION        ALSO         FILES  IMAGE\n\
         python    Python 3.13.5  py, python3  .py    sha256:0123456789ab\n\
         c         -                           .c     not built\n"
    );
}

#[test]
fn languages_as_json_are_the_backends_answer() {
    let backend = FakeBackend::ending(exited(0));
    let text = stdout_of(backend.cloude().args(["languages", "--json"]));
    let parsed: Vec<cloude_protocol::api::LanguageInfo> = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed, common::languages());
}

#[test]
fn a_host_and_port_serve_as_a_url() {
    let backend = FakeBackend::ending(exited(0));
    stdout_of(cloude().args(["languages", "--backend", &backend.address.to_string()]));
}

#[test]
fn every_shell_has_a_completion() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout_of(cloude().args(["completion", shell]));
        assert!(
            script.contains("cloude") && script.contains("doctor"),
            "{shell}: {script}"
        );
    }
}

#[test]
fn image_executes_cloude_initramfs_with_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let tool = folder.path().join("cloude-initramfs");
    std::fs::write(&tool, "#!/bin/sh\necho \"$@\"\nexit 9\n").unwrap();
    make_executable(&tool);
    let output = copy_of_cloude(folder.path())
        .args(["image", "build", "--language", "python"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "build --language python\n"
    );
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn doctor_prints_each_problem_with_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    let languages = folder.path().join("languages");
    std::fs::create_dir_all(languages.join("bad")).unwrap();
    std::fs::write(languages.join("bad/language.toml"), "file = 3").unwrap();
    let output = cloude()
        .args(["doctor", "--json", "--backend", "127.0.0.1:1"])
        .env("CLOUDE_CACHE_DIR", folder.path())
        .env("LANGUAGES_CONFIG_PATH", &languages)
        .env_remove("VM_KERNEL_PATH")
        .env_remove("VM_INITRAMFS_DIR")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    for name in ["kernel", "languages", "backend"] {
        let check = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check called {name}: {report}"));
        assert_eq!(check["state"], "broken", "{check}");
        assert!(!check["fix"].as_str().unwrap().is_empty(), "{check}");
    }
}

#[test]
fn doctor_finds_an_installed_kernel_and_image() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernels/stock");
    std::fs::create_dir_all(&kernel).unwrap();
    std::fs::write(kernel.join("vmlinux"), "").unwrap();
    std::fs::write(kernel.join("release"), "6.1.0-test\n").unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (name, version, days) in [
        ("python", "3.13.5", 2),
        ("node", "20.19.2", 40),
        ("go", "1.19.8", 1),
    ] {
        std::fs::write(images.join(name).with_extension("cpio"), "x").unwrap();
        let record =
            serde_json::json!({"program_version": version, "checked_at": now - days * 86_400});
        std::fs::write(images.join(name).with_extension("json"), record.to_string()).unwrap();
    }
    let tool = folder.path().join("cloude-vmm");
    std::fs::write(&tool, "#!/bin/sh\necho '{\"kind\":\"pvm\"}'\n").unwrap();
    make_executable(&tool);
    let backend = FakeBackend::ending(exited(0));
    let output = copy_of_cloude(folder.path())
        .arg("doctor")
        .env("CLOUDE_BACKEND", backend.url())
        .env("CLOUDE_CACHE_DIR", folder.path())
        .env(
            "LANGUAGES_CONFIG_PATH",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../languages"),
        )
        .env_remove("VM_KERNEL_PATH")
        .env_remove("VM_INITRAMFS_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no backend reported others"), "{text}");
    assert!(text.contains("6.1.0-test"), "{text}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("✓ image: python") && line.contains("Python 3.13.5")),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|line| line.starts_with("! image: node") && line.contains("40 days")),
        "{text}"
    );
    assert!(
        text.lines().any(|line| line.starts_with("! image: go")
            && line.contains("Go 1.19.8")
            && line.contains("1.24")),
        "{text}"
    );
    assert!(
        text.lines().any(|line| line.starts_with("! image: rust")),
        "{text}"
    );
    assert!(
        text.contains("cloude image build --language rust"),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|line| line.starts_with("✓ backend") && line.contains("2 languages")),
        "{text}"
    );
    // On any machine: without /dev/kvm the check fails, and with it because the probe reports `pvm`.
    assert!(text.lines().any(|line| line.starts_with("✗ kvm")), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn doctor_uses_the_paths_that_the_backend_reports() {
    let installation = Installation {
        version: "1".into(),
        kernel: InstalledKernel {
            path: "/server/kernel".into(),
            present: true,
            modules: true,
            release: Some("6.1.0-server".into()),
        },
        images: "/server/images".into(),
        languages: "/server/languages".into(),
        image_max_age_days: 30,
        state_dir: "/server/state".into(),
        cache_dir: "/server/cache".into(),
        worker: "/server/worker".into(),
        agent: "/server/agent".into(),
        isolation: Vec::new(),
    };
    let routes = Router::new().route("/v1/installation", get(|| async { Json(installation) }));
    let end = ExecutionEvent::Result(Box::new(exited(0)));
    let backend = FakeBackend::routed(Script::Events(vec![end]), routes);
    let output = backend
        .cloude()
        .arg("doctor")
        .env("CLOUDE_CACHE_DIR", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "✓ kernel               /server/kernel 6.1.0-server",
        "✓ languages            2 in /server/languages",
        "! image: python        Python 3.13.5, last compared with its source 31 days ago",
        "cloude image update python",
        "! image: c             not built",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(
        text.contains("the backend's; its state directory is /server/state"),
        "{text}"
    );
}

/// A copy of `cloude` in `folder`, so that the test controls the programs next to it.
fn copy_of_cloude(folder: &std::path::Path) -> assert_cmd::Command {
    let copy = folder.join("cloude");
    std::fs::copy(assert_cmd::cargo::cargo_bin!("cloude"), &copy).unwrap();
    let mut command = assert_cmd::Command::new(copy);
    command.write_stdin("");
    command
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
