//! `cloude-initramfs`: build, ls, inspect, rm and prune.
#![allow(clippy::unwrap_used)]

mod registry_support;

use std::fs;

use registry_support::{Layout, Packing, Tool};

fn layout() -> Layout {
    Layout::of(&[(Packing::Gzip, &[("etc/motd", b"hello")])])
}

#[test]
fn an_image_is_built_once_listed_inspected_and_removed() {
    let (tool, layout) = (Tool::new(), layout());
    let source = format!("oci:{}", layout.path().display());

    let first = tool.run(&["build", &source, "--name", "thing"]);
    let second = tool.run(&["build", &source, "--name", "thing"]);
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    assert!(String::from_utf8_lossy(&second.stdout).contains("up to date"));

    let listed = tool.run(&["ls", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed[0]["name"], "thing");
    assert_eq!(listed[0]["config"]["user"], "1000");
    assert_eq!(listed[0]["digest"], layout.manifest_digest());

    let files = tool.run(&["inspect", "thing", "--files"]).stdout;
    assert!(String::from_utf8_lossy(&files).contains("etc/motd"));

    assert!(tool.run(&["rm", "thing"]).status.success());
    let missing = tool.run(&["rm", "thing"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no image `thing`"));
}

#[test]
fn json_lines_end_with_the_built_image() {
    let (tool, layout) = (Tool::new(), layout());
    let output = tool.run(&[
        "build",
        layout.path().to_str().unwrap(),
        "--name",
        "thing",
        "--json",
    ]);
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["event"], &last["image"]),
        (&"built".into(), &"thing".into())
    );
    assert!(fs::metadata(last["path"].as_str().unwrap()).is_ok());
}

#[test]
fn an_image_that_does_not_fit_the_memory_is_refused() {
    let (tool, layout) = (Tool::new(), layout());
    let path = layout.path().to_str().unwrap();
    let stderr = tool.fail(&[path, "--name", "thing", "--memory", "1M"]);
    assert!(stderr.contains("the VM has 1 MiB"), "{stderr}");
    assert!(tool.run(&["ls", "--json"]).stdout.starts_with(b"[]"));
}

#[test]
fn a_limit_option_is_enforced() {
    let (tool, layout) = (Tool::new(), layout());
    let stderr = tool.fail(&[layout.path().to_str().unwrap(), "--max-file-bytes", "2"]);
    assert!(stderr.contains("etc/motd"), "{stderr}");
}

#[test]
fn a_damaged_layout_is_refused() {
    let (tool, layout) = (Tool::new(), layout());
    let blob = layout
        .path()
        .join("blobs/sha256")
        .join(&layout.layers[0][7..]);
    let mut bytes = fs::read(&blob).unwrap();
    bytes.push(0);
    fs::write(&blob, bytes).unwrap();
    let stderr = tool.fail(&[layout.path().to_str().unwrap()]);
    assert!(stderr.contains(&layout.layers[0]), "{stderr}");
}

#[test]
fn prune_deletes_what_its_dry_run_listed() {
    let tool = Tool::new();
    let blobs = tool.cache().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join("a".repeat(64));
    fs::write(&blob, b"12345").unwrap();

    let dry = tool.run(&["prune", "--dry-run"]);
    assert!(String::from_utf8_lossy(&dry.stdout).contains("would free 5 B"));
    assert!(blob.exists());

    let wet = tool.run(&["prune", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&wet.stdout).unwrap();
    assert_eq!(report["freed_bytes"], 5);
    assert!(!blob.exists());
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let tool = Tool::new();
    for arguments in [
        &["build"][..],
        &["build", "UPPER CASE"],
        &["build", "a", "--memory", "x"],
        &["frob"],
    ] {
        assert_eq!(tool.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn an_unknown_language_is_reported_with_the_known_ones() {
    let tool = Tool::new();
    let dir = tool.dir.path().join("languages");
    fs::create_dir(&dir).unwrap();
    let stderr = tool.fail(&[
        "--language",
        "cobol",
        "--languages-dir",
        dir.to_str().unwrap(),
    ]);
    assert!(stderr.contains("no language `cobol`"), "{stderr}");
}

#[test]
fn a_closed_pipe_exits_without_a_panic() {
    let cache = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cloude-initramfs"))
        .args(["ls", "--json"])
        .env("CLOUDE_CACHE_DIR", cache.path())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{output:?}");
}
