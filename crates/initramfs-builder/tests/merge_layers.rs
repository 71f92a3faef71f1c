//! Merging of layers: whiteouts, links, replaced entries, order.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use merge_support::*;

#[test]
fn a_later_layer_replaces_a_file() {
    let lower = tar([Entry::file("a", "old").owner(1, 1)]);
    let upper = tar([Entry::file("a", "newer").owner(2, 3).mode(0o600)]);
    assert!(lines(&[lower, upper]).contains(&"100600 2:3 5 a".to_owned()));
}

#[test]
fn owners_beyond_16_bits_and_every_mode_bit_are_kept() {
    let layer = tar([
        Entry::file("setuid", "")
            .mode(0o4755)
            .owner(100_000, 4_294_967_294),
        Entry::file("setgid", "").mode(0o2755),
        Entry::dir("tmp").mode(0o1777),
    ]);
    let lines = lines(&[layer]);
    for line in [
        "104755 100000:4294967294 0 setuid",
        "102755 0:0 0 setgid",
        "41777 0:0 0 tmp",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
    }
}

#[test]
fn missing_parents_are_created() {
    let lines = lines(&[tar([Entry::file("a/b/c", "x")])]);
    assert!(lines.contains(&"40755 0:0 0 a".to_owned()));
    assert!(lines.contains(&"40755 0:0 0 a/b".to_owned()));
}

#[test]
fn the_root_gets_its_metadata_from_the_image() {
    let layer = tar([Entry::dir("./").mode(0o700).owner(5, 6)]);
    assert_eq!(lines(&[layer])[0], "40700 5:6 0 .");
}

#[test]
fn a_whiteout_of_a_directory_removes_its_children() {
    let lower = tar([
        Entry::file("d/a", "1"),
        Entry::file("d/e/b", "2"),
        Entry::file("x", "3"),
    ]);
    let upper = tar([Entry::file(".wh.d", "")]);
    assert_eq!(paths(&[lower, upper]), ["x"]);
}

#[test]
fn a_whiteout_keeps_its_own_layer_in_any_order() {
    let lower = tar([Entry::file("d/old", "1"), Entry::file("f", "1")]);
    let upper = [
        Entry::file("d/new", "2"),
        Entry::file("f", "2"),
        Entry::file(".wh.d", ""),
        Entry::file(".wh.f", ""),
    ];
    let before = tar(upper.clone());
    let after = tar(upper.into_iter().rev());
    assert_eq!(paths(&[lower.clone(), before]), ["d", "d/new", "f"]);
    assert_eq!(paths(&[lower, after]), ["d", "d/new", "f"]);
}

#[test]
fn an_opaque_directory_hides_lower_layers() {
    let lower = tar([Entry::file("d/old", "1"), Entry::file("d/sub/old", "1")]);
    let upper = tar([
        Entry::dir("d").mode(0o711),
        Entry::file("d/sub/new", "2"),
        Entry::file("d/.wh..wh..opq", ""),
    ]);
    assert_eq!(
        paths(&[lower.clone(), upper.clone()]),
        ["d", "d/sub", "d/sub/new"]
    );
    assert!(lines(&[lower, upper]).contains(&"40711 0:0 0 d".to_owned()));
}

#[test]
fn a_whiteout_of_a_missing_name_is_ignored() {
    let layer = tar([
        Entry::file("no/such/.wh.x", ""),
        Entry::file(".wh.y", ""),
        Entry::file("z/.wh..wh..opq", ""),
    ]);
    assert_eq!(paths(&[layer]), Vec::<String>::new());
}

#[test]
fn a_removed_name_can_be_added_again() {
    let lower = tar([Entry::file("a", "1")]);
    let middle = tar([Entry::file(".wh.a", "")]);
    let upper = tar([Entry::file("a", "22")]);
    assert!(lines(&[lower, middle, upper]).contains(&"100644 0:0 2 a".to_owned()));
}

#[test]
fn hard_links_into_aufs_plnk_share_its_file() {
    let layer = tar([
        Entry::dir(".wh..wh.plnk"),
        Entry::file(".wh..wh.plnk/1.2", "data"),
        Entry::file(".wh..wh.aufs", ""),
        Entry::hardlink("a", ".wh..wh.plnk/1.2"),
        Entry::hardlink("b", ".wh..wh.plnk/1.2"),
    ]);
    let entries = entries(&[layer]);
    let inode = |path: &str| {
        let mut found = entries.iter().filter(|it| it.path == path.as_bytes());
        found.next().map(|it| (it.header.ino, it.header.nlink))
    };
    assert!(inode("a").is_some_and(|(_, nlink)| nlink == 3));
    assert_eq!([inode("a"); 2], [inode("b"), inode(".wh..wh.plnk/1.2")]);
    assert_eq!(inode(".wh..wh.aufs"), None);
}

#[test]
fn files_and_directories_replace_each_other() {
    let lower = tar([Entry::file("d/x", "1"), Entry::file("f", "1")]);
    let upper = tar([Entry::file("d", "2"), Entry::file("f/x", "2").mode(0o600)]);
    // A file that is the parent of an entry is not replaced.
    assert!(refused(&[lower.clone(), upper]).contains("is not a directory"));
    let upper = tar([
        Entry::file("d", "2"),
        Entry::dir("f"),
        Entry::file("f/x", "2"),
    ]);
    assert_eq!(paths(&[lower, upper]), ["d", "f", "f/x"]);
}

#[test]
fn a_directory_keeps_a_directory_and_replaces_a_symlink() {
    let lower = tar([Entry::file("d/x", "1"), Entry::symlink("s", "d")]);
    let upper = tar([Entry::dir("d").mode(0o700), Entry::dir("s")]);
    let lines = lines(&[lower, upper]);
    assert!(lines.contains(&"40700 0:0 0 d".to_owned()));
    assert!(lines.contains(&"100644 0:0 1 d/x".to_owned()));
    assert!(lines.contains(&"40755 0:0 0 s".to_owned()));
}

#[test]
fn hard_links_share_an_inode_and_the_first_has_the_data() {
    let lower = tar([Entry::file("b", "data").mode(0o4755).owner(7, 8)]);
    let upper = tar([Entry::hardlink("a", "b"), Entry::hardlink("c/d", "/a")]);
    let entries = entries(&[lower, upper]);
    let find = |path: &str| {
        let entry = entries
            .iter()
            .find(|entry| entry.path == path.as_bytes())
            .unwrap();
        entry.header.clone()
    };
    let (a, b, d) = (find("a"), find("b"), find("c/d"));
    assert_eq!([a.ino, a.ino], [b.ino, d.ino]);
    assert_eq!([a.nlink, b.nlink, d.nlink], [3; 3]);
    assert_eq!([a.size, b.size, d.size], [4, 0, 0]);
    assert_eq!((d.mode, d.uid, d.gid), (0o104_755, 7, 8));
}

#[test]
fn replacing_one_name_of_an_inode_keeps_the_others() {
    let lower = tar([
        Entry::file("a", "old"),
        Entry::hardlink("b", "a"),
        Entry::hardlink("c", "a"),
    ]);
    let upper = tar([Entry::file("a", "newer"), Entry::file(".wh.c", "")]);
    let entries = entries(&[lower, upper]);
    let find = |path: &str| {
        entries
            .iter()
            .find(|entry| entry.path == path.as_bytes())
            .unwrap()
    };
    assert_eq!((find("a").header.size, find("a").header.nlink), (5, 1));
    assert_eq!((find("b").header.size, find("b").header.nlink), (3, 1));
}

#[test]
fn symlinks_among_the_parents_are_followed_in_the_tree() {
    let layer = tar([
        Entry::dir("usr/lib"),
        Entry::symlink("lib", "/usr/lib"),
        Entry::file("lib/x", "1"),
        Entry::symlink("usr/up", "../lib"),
        Entry::file("usr/up/y", "2"),
        Entry::symlink("dangling", "a/b"),
        Entry::file("dangling/z", "3"),
    ]);
    assert_eq!(
        paths(&[layer]),
        [
            "a",
            "a/b",
            "a/b/z",
            "dangling",
            "lib",
            "usr",
            "usr/lib",
            "usr/lib/x",
            "usr/lib/y",
            "usr/up"
        ]
    );
}

#[test]
fn paths_are_sorted_by_their_bytes() {
    let layer = tar([
        Entry::file("a/z", ""),
        Entry::file("a.b", ""),
        Entry::file("a-b", ""),
        Entry::file("a0", ""),
        Entry::file("a/b/c", ""),
        Entry::file("a/b.c", ""),
        Entry::file(b"\xff\xfe", ""),
        Entry::file("Z", ""),
    ]);
    let entries = entries(&[layer]);
    let paths: Vec<_> = entries
        .iter()
        .skip(1)
        .map(|entry| entry.path.clone())
        .collect();
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!(paths, sorted);
    assert!(paths.contains(&b"\xff\xfe".to_vec()));
}
