//! Images of Debian packages, from the host's own sources.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod registry_support;

use std::fs;
use std::time::Duration;

use registry_support::Tool;

#[test]
fn the_same_packages_give_the_same_bytes_at_another_time() {
    let tool = Tool::new();
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str| {
        let path = folder.path().join(name);
        let output = tool.run(&["build", "debian:bookworm", "-o", path.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::read(path).unwrap()
    };
    let first = build("first.cpio");
    // Times in an image are whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(first == build("second.cpio"), "they differ");
}
