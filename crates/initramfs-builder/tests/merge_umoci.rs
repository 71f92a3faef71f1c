//! Compares the merged tree with the output of `umoci unpack`, entry by entry.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cloude_initramfs_builder::archive::list;
use cloude_initramfs_builder::limits::Limits;
use merge_support::compare::{Ignore, assert_same, can_run, run, snapshot};
use merge_support::*;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// Three layers with every kind of entry.
fn image() -> Vec<Vec<u8>> {
    let lower = tar([
        Entry::dir("./").mtime(1_500_000_000),
        Entry::dir("bin").mode(0o755),
        Entry::file("bin/busybox", vec![7; 300_000]).mode(0o755),
        Entry::hardlink("bin/sh", "bin/busybox"),
        Entry::hardlink("bin/ls", "./bin/sh"),
        Entry::file("bin/su", "su").mode(0o4755),
        Entry::file("bin/wall", "wall").mode(0o2755).owner(0, 5),
        Entry::dir("tmp").mode(0o1777),
        Entry::dir("etc"),
        Entry::file("etc/passwd", "root:x:0:0\n"),
        Entry::file("etc/shadow", "secret").mode(0o640).owner(0, 42),
        Entry::dir("home/user").owner(1000, 1000).mode(0o700),
        Entry::file("home/user/file", "mine").owner(123_456, 654_321),
        Entry::dir("opaque"),
        Entry::file("opaque/a", "1"),
        Entry::dir("opaque/sub"),
        Entry::file("opaque/sub/b", "2"),
        Entry::dir("dev"),
        Entry::device(b'3', "dev/null", 1, 3).mode(0o666),
        Entry::device(b'4', "dev/loop0", 7, 0),
        Entry::device(b'6', "run.fifo", 0, 0).mode(0o622),
        Entry::symlink("lib", "usr/lib").mtime(1_400_000_000),
        Entry::dir("usr"),
        Entry::dir("usr/lib"),
        Entry::file("lib/libc.so", "elf"),
        Entry::file("gone", "x"),
        Entry::file("was-file", "x"),
        Entry::dir("was-dir"),
        Entry::file("was-dir/x", "x"),
        Entry::file(b"not-\xff-utf8", "x"),
        Entry::file("empty", ""),
    ]);
    let middle = tar([
        Entry::file(".wh.gone", ""),
        Entry::dir("opaque").mode(0o711).mtime(1_600_000_000),
        Entry::file("opaque/.wh..wh..opq", ""),
        Entry::file("opaque/new", "3"),
        Entry::file("bin/busybox", vec![8; 1000]).mode(0o755),
        Entry::hardlink("bin/cat", "bin/sh"),
        Entry::dir("was-file").mode(0o750),
        Entry::file("was-file/y", "y"),
        Entry::file("was-dir", "now a file"),
        Entry::symlink("etc/mtab", "../proc/self/mounts"),
        Entry::hardlink("etc/mtab2", "etc/mtab"),
        Entry::dir("usr/lib").mode(0o2755).owner(0, 50),
        Entry::file("lib/libm.so", "elf2"),
    ]);
    let long = format!("{}/{}", "deep/".repeat(30), "name".repeat(60));
    let upper = Tar::new()
        .add(Entry::file("etc/.wh.shadow", ""))
        .add(Entry::file("lib/.wh.libc.so", ""))
        .add(Entry::dir("etc").mode(0o750).owner(2000, 3000))
        .add(Entry::file("/absolute", "a"))
        .add(Entry::file("../../dots", "d"))
        .add(Entry::file(long, "l"))
        .pax(&[
            ("path", "päx".as_bytes()),
            ("uid", b"3000000000"),
            ("mtime", b"1555555555.75"),
        ])
        .add(Entry::file("x", "pax"))
        .add(Entry::hardlink("bin/wall2", "/bin/wall"))
        .end();
    vec![lower, middle, upper]
}

/// Extracts an archive of the builder with GNU cpio.
fn extract(directory: &Path, layers: &[Vec<u8>]) -> std::path::PathBuf {
    let root = directory.join("ours");
    std::fs::create_dir(&root).unwrap();
    let bytes = cpio(merge(layers, Limits::default()).unwrap());
    run(
        "cpio",
        &["-idm", "--quiet", "--no-absolute-filenames"],
        &root,
        &bytes,
    );
    // GNU cpio does not restore the times of symlinks and directories; the kernel does (do_symlink and dir_utime,
    // init/initramfs.c).
    for entry in list(&bytes[..]).unwrap().map(Result::unwrap) {
        if matches!(entry.header.mode & 0o170_000, 0o040_000 | 0o120_000) {
            let path = root.join(OsStr::from_bytes(&entry.path));
            let time = Timespec {
                tv_sec: entry.header.mtime.into(),
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }
    root
}

/// Removes the entries that the builder adds to every image.
fn without_own(
    mut tree: BTreeMap<String, String>,
    reference: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for path in [".cloude", ".cloude/image.json", "dev", "dev/console"] {
        if !reference.contains_key(path) {
            tree.remove(path);
        }
    }
    tree
}

#[test]
fn an_image_with_every_kind_of_entry_equals_umocis() {
    if !can_run(&["umoci", "cpio"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layers = image();
    let (theirs, output) = umoci::unpack(directory.path(), &layers);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ours = extract(directory.path(), &layers);
    let mut theirs = snapshot(&theirs, Ignore::default());
    let mut ours = without_own(snapshot(&ours, Ignore::default()), &theirs);
    // umoci gives the root and implicit directories the time of the unpacking.
    for path in ["", "home"]
        .map(str::to_owned)
        .into_iter()
        .chain((1..=30).map(|depth| vec!["deep"; depth].join("/")))
    {
        let time = |line: String| line.split(" at ").next().unwrap().to_owned();
        assert_eq!(
            theirs.remove(&path).map(time),
            ours.remove(&path).map(time),
            "{path}"
        );
    }
    assert!(ours.len() >= 34, "{}", ours.len());
    assert_same(&ours, &theirs, ["ours", "umoci"]);
}

/// A path of few names, so that entries collide.
fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", ".."], 1..4)
        .prop_map(|parts| parts.join("/"))
        .prop_filter("the root is another matter", |path| {
            !path.ends_with("..") && path.split('/').any(|part| part != "..")
        })
}

fn entry() -> impl Strategy<Value = Entry> {
    let whiteout = |path: String| match path.rsplit_once('/') {
        Some((parent, name)) => format!("{parent}/.wh.{name}"),
        None => format!(".wh.{path}"),
    };
    prop_oneof![
        4 => (path(), "[xyz]{0,3}", 0u32..0o10000).prop_map(|(path, data, mode)| Entry::file(path, data).mode(mode)),
        4 => (path(), 0u32..0o10000, 0u32..70_000).prop_map(|(path, mode, uid)| Entry::dir(path).mode(mode).owner(uid, 1)),
        3 => (path(), path()).prop_map(|(path, target)| Entry::symlink(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Entry::symlink(path, format!("/{target}"))),
        2 => (path(), path()).prop_map(|(path, target)| Entry::hardlink(path, target)),
        1 => path().prop_map(|path| Entry::device(b'3', path, 1, 3)),
        3 => path().prop_map(move |path| Entry::file(whiteout(path), "")),
        1 => path().prop_map(|path| Entry::file(format!("{path}/.wh..wh..opq"), "")),
        1 => path().prop_map(|path| Entry::file(format!(".wh..wh.plnk/{path}"), "aufs")),
        1 => (path(), path()).prop_map(|(path, target)| {
            Entry::hardlink(path, format!(".wh..wh.plnk/{target}"))
        }),
        1 => path().prop_map(|path| Entry::dir(format!("{path}/.wh..wh.plnk"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The merged tree equals umoci's for arbitrary layers that umoci accepts.
    #[test]
    fn arbitrary_layers_are_the_same_as_umoci_unpacks_them(
        layers in proptest::collection::vec(proptest::collection::vec(entry(), 1..10), 1..4)
    ) {
        if !can_run(&["umoci", "cpio"]) {
            return Ok(());
        }
        let directory = tempfile::tempdir().unwrap();
        // Layers with a refused entry are cut before it.
        let mut archives: Vec<Vec<u8>> = Vec::new();
        for entries in layers {
            let mut kept: Vec<Entry> = Vec::new();
            for entry in entries {
                kept.push(entry);
                let mut layers = archives.clone();
                layers.push(tar(kept.clone()));
                if merge(&layers, Limits::default()).is_err() {
                    kept.pop();
                }
            }
            archives.push(tar(kept));
        }
        let (theirs, output) = umoci::unpack(directory.path(), &archives);
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ours = extract(directory.path(), &archives);
        // Times are not compared: umoci gives implicit directories the time of the unpacking.
        let ignore = Ignore { mtimes: true, root: true };
        let theirs = snapshot(&theirs, ignore);
        let ours = without_own(snapshot(&ours, ignore), &theirs);
        assert_same(&ours, &theirs, ["ours", "umoci"]);
    }
}
