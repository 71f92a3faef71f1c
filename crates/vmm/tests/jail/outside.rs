//! A jailed worker as the host sees it in /proc.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_link, read_to_string};
use std::os::unix::fs::MetadataExt;

use libtest_mimic::Trial;

use super::{Jailed, WALLS};

/// A check of the process whose directory in /proc it gets.
type Check = fn(&str);

pub fn trials() -> Vec<Trial> {
    let cases: [(&str, Check); 8] = [
        ("a_worker_has_no_capability", no_capability),
        ("a_worker_has_namespaces_of_its_own", namespaces),
        ("a_worker_has_one_mount_and_it_is_empty", mounts),
        ("a_worker_has_no_environment", environment),
        ("a_worker_holds_its_socket_and_nothing_else", descriptors),
        ("a_worker_is_not_dumpable", dumpable),
        ("a_worker_is_another_user_than_root", user),
        ("a_worker_dies_with_its_socket", |_| {}),
    ];
    let trial = |(name, check): (&'static str, Check)| {
        Trial::test(name, move || {
            let mut worker = Jailed::start(&WALLS);
            // It answers once it is jailed.
            worker.channel.send(&("nothing", 0), &[]).unwrap();
            worker.channel.recv::<i32>().unwrap();
            check(&format!("/proc/{}", worker.process.id()));
            let (ours, _theirs) = cloude_vmm::control::Channel::pair().unwrap();
            drop(std::mem::replace(&mut worker.channel, ours));
            assert_eq!(worker.process.wait().unwrap(), Some(0));
            Ok(())
        })
        // The files of a process that is not dumpable belong to root.
        .with_ignored_flag(!rustix::process::geteuid().is_root())
    };
    cases.into_iter().map(trial).collect()
}

/// The value of a line of /proc/PID/status.
fn status(proc: &str, key: &str) -> String {
    let text = read_to_string(format!("{proc}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn no_capability(proc: &str) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(proc, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(proc, "NoNewPrivs"), "1");
    assert_eq!(status(proc, "Seccomp"), "2");
}

fn namespaces(proc: &str) {
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |proc: &str| read_link(format!("{proc}/ns/{name}")).unwrap();
        assert_ne!(of(proc), of("/proc/self"), "{name}");
    }
    assert!(status(proc, "NSpid").ends_with("\t1"));
}

fn mounts(proc: &str) {
    let text = read_to_string(format!("{proc}/mountinfo")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [root] = lines[..] else {
        panic!("{text}");
    };
    assert!(root.contains(" / / ro,nosuid,nodev,noexec"), "{root}");
    assert_eq!(read_dir(format!("{proc}/root/")).unwrap().count(), 0);
}

fn environment(proc: &str) {
    assert_eq!(read_to_string(format!("{proc}/environ")).unwrap(), "");
}

fn descriptors(proc: &str) {
    let target = |entry: std::fs::DirEntry| {
        let target = read_link(entry.path())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let (kind, _) = target.split_once('[').unwrap_or((&target, ""));
        (entry.file_name().into_string().unwrap(), kind.to_owned())
    };
    let mut open: BTreeSet<_> = read_dir(format!("{proc}/fd"))
        .unwrap()
        .map(|entry| target(entry.unwrap()))
        .collect();
    // Standard output and error are those of the caller.
    open.retain(|(number, _)| number != "1" && number != "2");
    let numbers: Vec<_> = open.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(numbers, ["0", "3", "4"], "{open:?}");
    let kinds: Vec<_> = open.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds[..2], ["/dev/null", "socket:"]);
    assert!(kinds[2].ends_with("/pagemap"), "{kinds:?}");
}

fn dumpable(proc: &str) {
    // The files of a process that is not dumpable belong to the root of its user namespace's parent.
    let owner = std::fs::metadata(format!("{proc}/mem")).unwrap().uid();
    assert_eq!(owner, 0);
    let core = read_to_string(format!("{proc}/limits")).unwrap();
    let core = core
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let values: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(values, ["0", "0"]);
}

fn user(proc: &str) {
    let map = read_to_string(format!("{proc}/uid_map")).unwrap();
    let fields: Vec<_> = map.split_whitespace().collect();
    assert_eq!((fields[0], fields[2]), ("1000", "1"), "{map}");
    assert_eq!(
        read_to_string(format!("{proc}/gid_map"))
            .unwrap()
            .lines()
            .count(),
        1
    );
}
