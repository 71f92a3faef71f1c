//! The test's view of its host: a separate network namespace, processes, and leftovers of a backend.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Moves this thread and its later children into a new network namespace that has only `lo`, and makes this
/// process the subreaper of its descendants, so that [`descendants`] also finds orphans.
///
/// Concurrent tests then cannot see each other's bridges, TAPs and nftables rules. Needs root.
pub fn isolate() {
    // SAFETY: takes no pointers; only the network namespace of this thread changes.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert!(
        result == 0,
        "unshare(CLONE_NEWNET) failed: {}: run the tests as root",
        std::io::Error::last_os_error()
    );
    // SAFETY: takes no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert!(
        result == 0,
        "prctl(PR_SET_CHILD_SUBREAPER) failed: {}",
        std::io::Error::last_os_error()
    );
    run("ip", &["link", "set", "lo", "up"]);
}

/// Runs a command and returns its standard output. Panics with the command's output if it fails.
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

/// The names of all network devices in this test's namespace.
pub fn links() -> Vec<String> {
    let text = run("ip", &["-o", "link"]);
    text.lines()
        .filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
        .collect()
}

/// The nftables rule set of this test's namespace.
pub fn rules() -> String {
    run("nft", &["list", "ruleset"])
}

/// The value of a line such as `VmRSS:  123 kB` of a file of proc(5); none if the file or the line does not exist.
pub fn kib(path: &str, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Process id, parent process id and command line of every process.
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
        // proc(5): `pid (comm) state ppid …`; comm may contain `)`, so the search starts at the end.
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

/// Process ids of the children of `parent`, zombies included. Reaps nothing.
pub fn children_of(parent: u32) -> Vec<i32> {
    processes()
        .into_iter()
        .filter(|(_, other, _)| *other == parent as i32)
        .map(|(id, _, _)| id)
        .collect()
}

/// Process id and command line of every descendant of this process. Reaps ended children first, so call it only
/// while no [`std::process::Child`] can have ended without a `wait`.
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

/// Reaps ended children that this process inherited from killed parents. waitpid(-1) would also reap the process
/// of a [`std::process::Child`], whose `wait` would then fail.
fn reap_orphans() {
    // SAFETY: a null status is allowed; WNOHANG never waits.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// The time limit of every wait in a test: one minute, multiplied by `CLOUDE_TIME_FACTOR`.
///
/// It ends tests that hang; it is no requirement on performance.
pub fn patience() -> Duration {
    let factor = std::env::var("CLOUDE_TIME_FACTOR").map_or(1.0, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_TIME_FACTOR is {text:?}: set it to a number"))
    });
    Duration::from_secs(60).mul_f64(factor)
}

/// Polls `condition` until it returns a value. Panics with `what` after [`patience`].
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

/// Panics if a backend left a process, network device, nftables rule or file in `temporary`.
pub fn assert_nothing_left(temporary: &Path) {
    // The kernel removes killed processes and their devices asynchronously.
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
