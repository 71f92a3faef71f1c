//! Runs a test in a separate network namespace. Needs root.

use std::process::Command;

/// Set in the child process: the same test inside `unshare --net`.
const INSIDE: &str = "CLOUDE_TEST_IN_NAMESPACE";

/// Runs the named test in a new network namespace and returns false; true inside of it.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        // A mount namespace, so that /sys and /proc/sys/net show the links of the new network namespace.
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare needs root");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// The standard output of a command.
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
