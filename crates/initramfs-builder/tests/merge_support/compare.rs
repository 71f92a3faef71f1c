//! Describes trees on disk as lines of text, for comparison.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// True if this process is root and has these programs. Prints a note if not.
pub fn can_run(programs: &[&str]) -> bool {
    let mut missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| {
            let found = Command::new(program).arg("--version").output();
            found.is_err()
        })
        .collect();
    // Owners and device nodes need root.
    if !rustix_is_root() {
        missing.push("root");
    }
    if !missing.is_empty() {
        eprintln!("SKIPPED, NOTHING WAS TESTED: {missing:?} missing; run tools/setup");
    }
    missing.is_empty()
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Runs a command in a directory with bytes on its standard input; panics unless it succeeds.
pub fn run(program: &str, arguments: &[&str], directory: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // EPIPE: the program stopped reading; its exit status decides.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    });
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Fields to leave out of a comparison.
#[derive(Clone, Copy, Default)]
pub struct Ignore {
    pub mtimes: bool,
    pub root: bool,
}

/// One line for each entry of a tree: type and permissions, owner, time, links, device, content.
pub fn snapshot(root: &Path, ignore: Ignore) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    // Hard links are described by the first name of their inode.
    let mut inodes = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    let mut paths = Vec::new();
    while let Some(path) = pending.pop() {
        let full = root.join(OsStr::from_bytes(&path));
        if std::fs::symlink_metadata(&full).unwrap().is_dir() {
            for child in std::fs::read_dir(&full).unwrap() {
                let name = child.unwrap().file_name();
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(name.as_bytes());
                pending.push(child);
            }
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        if path.is_empty() && ignore.root {
            continue;
        }
        let shown = path.escape_ascii().to_string();
        let line = describe(
            &root.join(OsStr::from_bytes(&path)),
            &shown,
            ignore,
            &mut inodes,
        );
        lines.insert(shown, line);
    }
    lines
}

fn describe(
    path: &Path,
    shown: &str,
    ignore: Ignore,
    inodes: &mut BTreeMap<u64, String>,
) -> String {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let file_type = metadata.file_type();
    let mut line = format!(
        "{:o} {}:{}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid()
    );
    if !ignore.mtimes {
        line.push_str(&format!(" at {}", metadata.mtime()));
    }
    if file_type.is_symlink() {
        let target = std::fs::read_link(path).unwrap();
        line.push_str(&format!(
            " -> {}",
            target.as_os_str().as_bytes().escape_ascii()
        ));
    } else if file_type.is_block_device() || file_type.is_char_device() {
        line.push_str(&format!(" device {}", metadata.rdev()));
    } else if file_type.is_file() {
        let content = std::fs::read(path).unwrap();
        line.push_str(&format!(
            " {} bytes {:x}",
            content.len(),
            fingerprint(&content)
        ));
    }
    if !file_type.is_dir() && !file_type.is_symlink() && metadata.nlink() > 1 {
        let first = inodes
            .entry(metadata.ino())
            .or_insert_with(|| shown.to_owned());
        line.push_str(&format!(" link {} of {}", metadata.nlink(), first));
    }
    line
}

/// FNV-1a, to compare the files of a test.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Fails with the lines that differ.
pub fn assert_same(
    left: &BTreeMap<String, String>,
    right: &BTreeMap<String, String>,
    names: [&str; 2],
) {
    let mut differences = String::new();
    for path in left
        .keys()
        .chain(right.keys())
        .collect::<std::collections::BTreeSet<_>>()
    {
        let (left, right) = (left.get(path), right.get(path));
        if left != right {
            differences.push_str(&format!(
                "\n`{path}`\n  {}: {left:?}\n  {}: {right:?}",
                names[0], names[1]
            ));
        }
    }
    assert!(differences.is_empty(), "the trees differ:{differences}");
}
