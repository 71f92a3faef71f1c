//! What merging layers gives, entry by entry.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use cloude_initramfs_builder::archive::ImageOptions;
use cloude_initramfs_builder::limits::Limits;
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
fn parents_without_an_entry_are_made() {
    let lines = lines(&[tar([Entry::file("a/b/c", "x")])]);
    assert!(lines.contains(&"40755 0:0 0 a".to_owned()));
    assert!(lines.contains(&"40755 0:0 0 a/b".to_owned()));
}

#[test]
fn the_root_takes_its_metadata_from_the_image() {
    let layer = tar([Entry::dir("./").mode(0o700).owner(5, 6)]);
    assert_eq!(lines(&[layer])[0], "40700 5:6 0 .");
}

#[test]
fn a_whiteout_removes_what_is_below_too() {
    let lower = tar([
        Entry::file("d/a", "1"),
        Entry::file("d/e/b", "2"),
        Entry::file("x", "3"),
    ]);
    let upper = tar([Entry::file(".wh.d", "")]);
    assert_eq!(paths(&[lower, upper]), ["x"]);
}

#[test]
fn a_whiteout_spares_its_own_layer_wherever_it_stands() {
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
fn an_opaque_directory_hides_what_lower_layers_have() {
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
fn a_whiteout_of_nothing_is_nothing() {
    let layer = tar([
        Entry::file("no/such/.wh.x", ""),
        Entry::file(".wh.y", ""),
        Entry::file("z/.wh..wh..opq", ""),
    ]);
    assert_eq!(paths(&[layer]), Vec::<String>::new());
}

#[test]
fn what_a_whiteout_removed_can_come_back() {
    let lower = tar([Entry::file("a", "1")]);
    let middle = tar([Entry::file(".wh.a", "")]);
    let upper = tar([Entry::file("a", "22")]);
    assert!(lines(&[lower, middle, upper]).contains(&"100644 0:0 2 a".to_owned()));
}

#[test]
fn hard_links_into_the_plnk_directory_of_aufs_share_its_file() {
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
    // A parent that is a file is not replaced for its child's sake.
    assert!(refused(&[lower.clone(), upper]).contains("is no directory"));
    let upper = tar([
        Entry::file("d", "2"),
        Entry::dir("f"),
        Entry::file("f/x", "2"),
    ]);
    assert_eq!(paths(&[lower, upper]), ["d", "f", "f/x"]);
}

#[test]
fn a_directory_over_a_directory_keeps_its_files_and_over_a_symlink_replaces_it() {
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
fn replacing_one_name_of_an_inode_leaves_the_others() {
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

#[test]
fn long_names_come_from_gnu_headers_and_from_pax_records() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let target = "t".repeat(300);
    let gnu = tar([Entry::file(&long, "1"), Entry::symlink("s", &target)]);
    let pax = Tar::new()
        .pax(&[("path", long.as_bytes())])
        .add(Entry::file("cut", "1"))
        .pax(&[("linkpath", target.as_bytes())])
        .add(Entry::symlink("s", "cut"))
        .end();
    assert_eq!(
        lines(std::slice::from_ref(&gnu)),
        lines(std::slice::from_ref(&pax))
    );
    assert_eq!(paths(&[gnu]), ["d".repeat(200), long, "s".to_owned()]);
}

#[test]
fn pax_owners_and_times_override_the_headers() {
    let layer = Tar::new()
        .pax(&[
            ("uid", b"3000000000"),
            ("gid", b"70000"),
            ("mtime", b"1234567890.987654321"),
        ])
        .add(Entry::file("a", "").owner(1, 1))
        .end();
    let entries = entries(&[layer]);
    let header = &entries
        .iter()
        .find(|entry| entry.path == b"a")
        .unwrap()
        .header;
    assert_eq!(
        (header.uid, header.gid, header.mtime),
        (3_000_000_000, 70_000, 1_234_567_890)
    );
}

#[test]
fn names_in_the_ustar_prefix_field_are_joined() {
    let mut block = Tar::header(&Entry::file("name", ""));
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[345..351].copy_from_slice(b"prefix");
    checksum(&mut block);
    assert_eq!(
        paths(&[Tar::new().raw(&block).end()]),
        ["prefix", "prefix/name"]
    );
}

#[test]
fn a_file_of_the_oldest_format_whose_name_ends_in_a_slash_is_a_directory() {
    let layer = tar([
        Entry {
            flag: 0,
            ..Entry::file("d/", "")
        },
        Entry {
            flag: 0,
            ..Entry::file("f", "1")
        },
    ]);
    let lines = lines(&[layer]);
    assert!(lines.contains(&"40644 0:0 0 d".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"100644 0:0 1 f".to_owned()), "{lines:#?}");
}

#[test]
fn attributes_that_newc_cannot_hold_are_counted() {
    let layer = Tar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("SCHILY.xattr.user.a", b"b"),
        ])
        .add(Entry::file("ping", ""))
        .end();
    let warnings = merge(&[layer], Limits::default()).unwrap().warnings();
    assert_eq!(
        (warnings.capabilities_dropped, warnings.xattrs_dropped),
        (1, 1)
    );
}

#[test]
fn times_after_source_date_epoch_are_clamped_and_earlier_ones_kept() {
    let layer = tar([
        Entry::file("new", "").mtime(2_000),
        Entry::file("old", "").mtime(500),
    ]);
    let tree = merge(&[layer], Limits::default()).unwrap();
    let options = ImageOptions {
        source_date_epoch: Some(1_000),
        ..ImageOptions::default()
    };
    let bytes = cpio_with(tree, &options);
    let listed = cloude_initramfs_builder::archive::list(&bytes[..])
        .unwrap()
        .map(Result::unwrap);
    let times: Vec<_> = listed
        .map(|entry| (String::from_utf8(entry.path).unwrap(), entry.header.mtime))
        .collect();
    for (path, time) in times {
        assert_eq!(time, if path == "old" { 500 } else { 1_000 }, "{path}");
    }
}

#[test]
fn a_console_is_added_only_where_there_is_none() {
    let has = |layers: &[Vec<u8>]| {
        lines(layers)
            .into_iter()
            .filter(|line| line.contains("dev/console"))
            .collect::<Vec<_>>()
    };
    assert_eq!(has(&[tar([])]), ["20600 0:0 0 dev/console"]);
    assert_eq!(
        has(&[tar([Entry::file("dev/console", "xx")])]),
        ["100644 0:0 2 dev/console"]
    );
    assert_eq!(
        has(&[tar([Entry::symlink("dev", "etc")])]),
        Vec::<String>::new()
    );
}

#[test]
fn layers_in_gzip_zstd_and_of_several_members_read_the_same() {
    use std::io::Write;
    let plain = tar([Entry::file("a", "x".repeat(100_000)), Entry::dir("b")]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (start, rest) = plain.split_at(1000);
    let members = [gzip(start), gzip(rest)].concat();
    let frames = [
        zstd::encode_all(start, 1).unwrap(),
        zstd::encode_all(rest, 1).unwrap(),
    ]
    .concat();
    let expected = lines(std::slice::from_ref(&plain));
    for layer in [
        gzip(&plain),
        members,
        zstd::encode_all(&plain[..], 3).unwrap(),
        frames,
    ] {
        assert_eq!(lines(&[layer]), expected);
    }
}

#[test]
fn the_diff_id_is_the_digest_of_the_uncompressed_layer() {
    use cloude_initramfs_builder::layer::{Compression, Context, Layer};
    let plain = Tar::new().add(Entry::file("a", "x")).end();
    let context = Context::new(Limits::default(), std::env::temp_dir());
    let layer = Layer::read(
        &zstd::encode_all(&plain[..], 1).unwrap()[..],
        Compression::Zstd,
        &context,
    )
    .unwrap();
    let again = Layer::read(&plain[..], Compression::Plain, &context).unwrap();
    assert_eq!(layer.diff_id(), again.diff_id());
    assert_eq!(layer.diff_id().len(), "sha256:".len() + 64);
    assert!(layer.verify_diff_id(again.diff_id()).is_ok());
    assert!(
        layer
            .verify_diff_id("sha256:0")
            .unwrap_err()
            .to_string()
            .contains("sha256:0")
    );
}
