//! Images of Debian packages, from the apt sources of this machine.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod registry_support;

use std::fs;
use std::time::Duration;

use cloude_initramfs_builder::archive::list;
use registry_support::Tool;

fn build(tool: &Tool, name: &str) -> Vec<u8> {
    let path = tool.dir.path().join(name);
    let output = tool.run(&["build", "debian:bookworm", "-o", path.to_str().unwrap()]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read(path).unwrap()
}

#[test]
fn the_same_packages_give_the_same_bytes_at_another_time() {
    let tool = Tool::new();
    let first = build(&tool, "first.cpio");
    // Times in an image have a resolution of one second.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(first == build(&tool, "second.cpio"), "they differ");
}

#[test]
fn every_image_has_a_userland_time_zones_and_certificates() {
    let tool = Tool::new();
    let archive = build(&tool, "image.cpio");
    let entries: Vec<_> = list(&archive[..]).unwrap().map(Result::unwrap).collect();
    let paths: Vec<String> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
        .collect();

    for program in [
        "awk", "bash", "cmp", "diff", "file", "find", "free", "grep", "gzip", "head", "hostname",
        "ps", "sed", "sh", "tar", "tput", "which", "xargs", "xz",
    ] {
        let path = format!("usr/bin/{program}");
        assert!(paths.contains(&path), "{path}");
    }
    for path in ["etc/localtime", "usr/share/zoneinfo/Asia/Kolkata"] {
        assert!(paths.iter().any(|it| it == path), "{path}");
    }
    let bundle = entries
        .iter()
        .find(|entry| entry.path == b"etc/ssl/certs/ca-certificates.crt");
    assert!(bundle.is_some_and(|entry| entry.header.size > 100_000));
    // Certificates are found by the hash of their subject: `5ad8a5d6.0`.
    let hashed = paths
        .iter()
        .filter(|path| path.starts_with("etc/ssl/certs/") && path.ends_with(".0"));
    assert!(hashed.count() > 100);
    let perl = paths.iter().any(|path| path.starts_with("usr/share/perl/"));
    assert!(!perl, "packages that need Perl came along");
}
