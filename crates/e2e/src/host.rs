//! The host of a test: a network of its own, and a look at what is left.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Gives this thread, and all that it starts, a network namespace with only a loopback; and makes
/// this process the parent of every orphan below it, so that none is overlooked.
///
/// Tests that run side by side never see each other's bridges, TAPs and rules. Needs root.
pub fn isolate() {
    // SAFETY: takes no pointers; nothing of this process depends on its old namespace.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert!(
        result == 0,
        "a network namespace of one's own: {}: run the tests as root",
        std::io::Error::last_os_error()
    );
    // SAFETY: takes no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert!(
        result == 0,
        "PR_SET_CHILD_SUBREAPER: {}",
        std::io::Error::last_os_error()
    );
    run("ip", &["link", "set", "lo", "up"]);
}

/// Runs a command that must succeed; gives its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env(
            "PATH",
            format!(
                "{}:/usr/sbin:/sbin",
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: run tools/setup"));
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The names of all network devices of this test's namespace.
pub fn links() -> Vec<String> {
    let text = run("ip", &["-o", "link"]);
    text.lines()
        .filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
        .collect()
}

/// All rules of the packet filter.
pub fn rules() -> String {
    run("nft", &["list", "ruleset"])
}

/// Every process: its id, its parent's, and its command line.
fn processes() -> Vec<(i32, i32, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // proc(5): `pid (comm) state ppid …`, and comm may hold anything.
        let Some(parent) = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1)?.parse::<i32>().ok())
        else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        all.push((
            id,
            parent,
            String::from_utf8_lossy(&command).replace('\0', " "),
        ));
    }
    all
}

/// Processes that another one has started and not waited for. Collects nobody's child.
pub fn children_of(parent: u32) -> Vec<i32> {
    processes()
        .into_iter()
        .filter(|(_, other, _)| *other == parent as i32)
        .map(|(id, _, _)| id)
        .collect()
}

/// Processes below this one, each with its id and command line. What has ended is collected first.
pub fn descendants() -> Vec<(i32, String)> {
    reap_orphans();
    let all = processes();
    let mut below = vec![std::process::id() as i32];
    let mut found = Vec::new();
    while let Some(parent) = below.pop() {
        for (id, _, command) in all.iter().filter(|(_, other, _)| *other == parent) {
            below.push(*id);
            found.push((*id, command.clone()));
        }
    }
    found
}

/// Collects children that are no [`std::process::Child`] of anyone's: those that a killed parent
/// left to us. Call it only while no child that is still to be waited for may have ended.
fn reap_orphans() {
    // SAFETY: a null status is allowed; WNOHANG never waits.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// After how long something that did not happen never will: a minute, times `CLOUDE_TIME_FACTOR`.
///
/// It ends tests that hang, and says nothing of how long anything may take.
pub fn patience() -> Duration {
    let factor = std::env::var("CLOUDE_TIME_FACTOR").map_or(1.0, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_TIME_FACTOR is {text:?}: give a number"))
    });
    Duration::from_secs(60).mul_f64(factor)
}

/// Waits for something, and panics with what it was once [`patience`] is over.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let limit = patience();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing of a backend is left: no process, network device, rule or temporary file.
pub fn assert_nothing_left(temporary: &Path) {
    // What was killed takes a moment to be gone.
    let deadline = Instant::now() + patience();
    loop {
        let processes = descendants();
        let links: Vec<String> = links().into_iter().filter(|name| name != "lo").collect();
        let rules = rules();
        let files: Vec<_> = std::fs::read_dir(temporary)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        if processes.is_empty() && links.is_empty() && rules.trim().is_empty() && files.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left behind: processes {processes:?}, links {links:?}, rules {rules:?}, files {files:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
