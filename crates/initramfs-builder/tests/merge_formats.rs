//! Formats of layers: tar variants, attributes, times, compression.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use cloude_initramfs_builder::archive::ImageOptions;
use cloude_initramfs_builder::limits::Limits;
use merge_support::*;

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
fn a_v7_name_with_a_slash_at_its_end_is_a_directory() {
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
fn dropped_attributes_are_counted() {
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
fn times_after_source_date_epoch_are_clamped() {
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
fn a_console_is_added_if_it_is_missing() {
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
fn gzip_zstd_and_several_members_read_the_same() {
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
