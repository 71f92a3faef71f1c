//! Names, links and whiteouts that try to leave the tree, reserved names, and limits on names.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use cloude_initramfs_builder::limits::Limits;
use merge_support::*;

#[test]
fn absolute_and_dotted_names_stay_in_the_tree() {
    let layer = tar([
        Entry::file("/etc/passwd", "1"),
        Entry::file("../../../root/.ssh/authorized_keys", "2"),
        Entry::file("a/../../../b", "3"),
        Entry::file("//./c//d", "4"),
    ]);
    assert_eq!(
        paths(&[layer]),
        [
            "b",
            "c",
            "c/d",
            "etc",
            "etc/passwd",
            "root",
            "root/.ssh",
            "root/.ssh/authorized_keys"
        ]
    );
}

#[test]
fn symlinks_out_of_the_tree_are_followed_inside_it() {
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    let layer = tar([
        Entry::symlink("abs", target),
        Entry::file("abs/file", "x"),
        Entry::symlink("dots", format!("../../../../../..{target}")),
        Entry::file("dots/file2", "x"),
    ]);
    let paths = paths(&[layer]);
    assert!(
        paths.contains(&format!("{}/file", &target[1..])),
        "{paths:?}"
    );
    assert!(
        paths.contains(&format!("{}/file2", &target[1..])),
        "{paths:?}"
    );
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
}

#[test]
fn symlinks_of_a_lower_layer_do_not_lead_a_later_one_out() {
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    let lower = tar([Entry::symlink("etc", target)]);
    let upper = tar([
        Entry::file("etc/passwd", "x"),
        Entry::file("etc/.wh.shadow", ""),
    ]);
    assert!(paths(&[lower, upper]).contains(&format!("{}/passwd", &target[1..])));
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
}

#[test]
fn loops_of_symlinks_among_parents_are_refused() {
    for links in [
        vec![("a", "a")],
        vec![("a", "b"), ("b", "a")],
        vec![("a", "a/a")],
    ] {
        let links = links
            .into_iter()
            .map(|(name, target)| Entry::symlink(name, target));
        let layer = tar(links.chain([Entry::file("a/x", "")]));
        let message = refused(&[layer]);
        assert!(
            message.contains("40 symlinks") && message.contains("`a/x`"),
            "{message}"
        );
    }
}

#[test]
fn a_file_among_the_parents_is_refused() {
    let message = refused(&[tar([Entry::file("a", "x"), Entry::file("a/b", "y")])]);
    assert_eq!(message, "layer 1: `a/b`: its parent `a` is not a directory");
}

#[test]
fn whiteouts_through_symlinks_remove_inside_the_tree_only() {
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("precious"), "x").unwrap();
    let target = host.path().to_str().unwrap();
    let lower = tar([
        Entry::symlink("out", target),
        Entry::symlink("in", "data"),
        Entry::file("data/a", "1"),
        Entry::file("data/b", "2"),
    ]);
    let upper = tar([
        Entry::file("out/.wh.precious", ""),
        Entry::file("out/.wh..wh..opq", ""),
        Entry::file("in/.wh.a", ""),
    ]);
    assert_eq!(paths(&[lower, upper]), ["data", "data/b", "in", "out"]);
    assert!(host.path().join("precious").exists());
}

#[test]
fn a_whiteout_of_a_symlink_keeps_its_target() {
    let lower = tar([
        Entry::file("target/a", "1"),
        Entry::symlink("link", "target"),
    ]);
    let upper = tar([Entry::file(".wh.link", "")]);
    assert_eq!(paths(&[lower, upper]), ["target", "target/a"]);
}

#[test]
fn whiteouts_of_the_root_or_of_a_parent_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        let layer = tar([Entry::file("d/x", "1"), Entry::file(name, "")]);
        assert!(
            refused(&[layer]).contains("whiteout of an empty name"),
            "{name}"
        );
    }
}

#[test]
fn an_opaque_root_hides_all_lower_layers() {
    let lower = tar([Entry::file("a", "1")]);
    let upper = tar([Entry::file(".wh..wh..opq", ""), Entry::file("b", "2")]);
    assert_eq!(paths(&[lower, upper]), ["b"]);
}

#[test]
fn a_name_below_a_whiteout_is_an_ordinary_directory() {
    let lower = tar([Entry::file("d/x", "1")]);
    let upper = tar([Entry::file(".wh.d/x", "1")]);
    assert_eq!(paths(&[lower, upper]), [".wh.d", ".wh.d/x", "d", "d/x"]);
}

#[test]
fn the_root_cannot_become_something_else() {
    for entry in [
        Entry::file("/", "x"),
        Entry::symlink("./", "/etc"),
        Entry::file("a/..", "x"),
    ] {
        assert!(refused(&[tar([entry])]).contains("root something other than a directory"));
    }
}

#[test]
fn hard_links_out_of_the_tree_stay_in_it_or_are_refused() {
    for target in ["/etc/hostname", "../../etc/hostname", "etc/hostname"] {
        let message = refused(&[tar([Entry::hardlink("a", target)])]);
        assert!(
            message.contains("`etc/hostname`, which does not exist"),
            "{message}"
        );
    }
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("secret"), "x").unwrap();
    let layer = tar([
        Entry::symlink("out", host.path().to_str().unwrap()),
        Entry::hardlink("a", "out/secret"),
    ]);
    assert!(refused(&[layer]).contains("does not exist"));
}

#[test]
fn hard_links_to_directories_and_in_circles_are_refused() {
    let directory = tar([Entry::dir("d"), Entry::hardlink("a", "d")]);
    assert!(refused(&[directory]).contains("`d`, which is a directory"));
    let root = tar([Entry::hardlink("a", "/")]);
    assert!(refused(&[root]).contains("does not exist"));
    let itself = tar([Entry::file("a", "x"), Entry::hardlink("a", "a")]);
    assert!(refused(&[itself]).contains("it is a hard link to itself"));
    let circle = tar([Entry::hardlink("a", "b"), Entry::hardlink("b", "a")]);
    assert!(refused(&[circle]).contains("does not exist"));
    let own_child = tar([Entry::file("d/x", "1"), Entry::hardlink("d", "d/x")]);
    assert!(refused(&[own_child]).contains("does not exist"));
}

#[test]
fn reserved_names_are_refused_in_any_spelling() {
    for name in [
        ".cloude",
        "/.cloude/agent",
        "x/../.cloude/boot.json",
        "./.cloude/",
    ] {
        assert!(
            refused(&[tar([Entry::file(name, "evil")])]).contains("reserved"),
            "{name}"
        );
    }
    let link = [
        Entry::symlink("link", "/.cloude"),
        Entry::file("link/agent", "evil"),
    ];
    assert!(refused(&[tar(link)]).contains("reserved"));
    assert!(refused(&[tar([Entry::symlink(".cloude", "/tmp")])]).contains("reserved"));
    assert_eq!(
        paths(&[tar([Entry::file("a/.cloude/b", "x")])]),
        ["a", "a/.cloude", "a/.cloude/b"]
    );
}

#[test]
fn the_name_trailer_is_refused_in_the_root_only() {
    assert!(
        refused(&[tar([Entry::file("TRAILER!!!", "x"), Entry::file("b", "")])])
            .contains("marks its end")
    );
    // The directory has no entry of its own in the layer.
    for file in ["TRAILER!!!/b", "TRAILER!!!/c/d"] {
        let layer = tar([Entry::file(file, "x")]);
        assert!(refused(&[layer]).contains("marks its end"), "{file}");
    }
    let through_a_link = tar([Entry::symlink("l", "TRAILER!!!"), Entry::file("l/b", "x")]);
    assert!(refused(&[through_a_link]).contains("marks its end"));
    assert_eq!(
        paths(&[tar([Entry::file("d/TRAILER!!!", "x")])]),
        ["d", "d/TRAILER!!!"]
    );
}

#[test]
fn names_with_a_nul_are_refused() {
    let pax = |keyword: &str, value: &[u8]| {
        Tar::new()
            .pax(&[(keyword, value)])
            .add(Entry::file("a", ""))
            .end()
    };
    for layer in [
        pax("path", b"a\0b"),
        pax("linkpath", b"a\0b"),
        pax("GNU.sparse.name", b"a\0b"),
    ] {
        assert!(refused(&[layer]).contains("NUL"));
    }
    let long = Tar::new()
        .add(Entry {
            data: b"a\0b".to_vec(),
            ..Entry::new(b'L', "././@LongLink")
        })
        .add(Entry::file("a", ""))
        .end();
    assert!(refused(&[long]).contains("NUL"));
}

#[test]
fn names_over_the_limits_are_refused() {
    let message = refused(&[tar([Entry::file("n".repeat(256), "")])]);
    assert!(
        message.contains("a file name has 256 bytes and the limit is 255"),
        "{message}"
    );
    let path = vec!["d".repeat(99); 41].join("/");
    assert_eq!(path.len(), 4099);
    let message = refused(&[tar([Entry::file(path, "")])]);
    assert!(
        message.contains("a path has 4099 bytes and the limit is 4095"),
        "{message}"
    );
    let message = refused(&[tar([Entry::symlink("s", "t".repeat(4096))])]);
    assert!(
        message.contains("target has 4096 bytes and the limit is 4095"),
        "{message}"
    );
    let limits = Limits {
        max_name_bytes: 10,
        ..Limits::default()
    };
    assert!(
        refused_with(&[tar([Entry::file("n".repeat(11), "")])], limits).contains("limit is 10")
    );
}

#[test]
fn symlinks_cannot_make_a_path_longer_than_the_limit() {
    let half = vec!["d".repeat(200); 12].join("/");
    let layer = tar([
        Entry::symlink("s", &half),
        Entry::file(format!("s/{half}"), ""),
    ]);
    let message = refused(&[layer]);
    assert!(
        message.contains("symlinks followed") && message.contains("4095"),
        "{message}"
    );
    let name = tar([Entry::symlink("s", "n".repeat(300)), Entry::file("s/x", "")]);
    assert!(refused(&[name]).contains("300 bytes and the limit is 255"));
}

#[test]
fn control_characters_in_names_are_escaped_in_messages() {
    let message = refused(&[tar([Entry::hardlink("a\x1b]0;owned\x07", "no")])]);
    assert!(
        !message.contains('\x1b') && message.contains("\\u{1b}"),
        "{message}"
    );
}

#[test]
fn the_last_of_duplicate_entries_wins() {
    let layer = tar([
        Entry::file("a", "1"),
        Entry::file("a", "22").owner(1, 2),
        Entry::file("b", "x"),
        Entry::symlink("b", "a"),
        Entry::symlink("c", "a"),
        Entry::file("c", "333"),
    ]);
    let lines = lines(&[layer]);
    for line in ["100644 1:2 2 a", "120777 0:0 1 b -> a", "100644 0:0 3 c"] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
    }
}
