//! Archives of the builder read by GNU cpio and bsdtar, and archives of GNU cpio read by the builder.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use std::path::Path;

use cloude_initramfs_builder::archive::{ImageOptions, Output, list};
use cloude_initramfs_builder::limits::Limits;
use merge_support::compare::{Ignore, assert_same, can_run, run, snapshot};
use merge_support::*;

fn layer() -> Vec<u8> {
    tar([
        Entry::dir("bin"),
        Entry::file(
            "bin/sh",
            (0..200_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>(),
        )
        .mode(0o4755),
        Entry::hardlink("bin/ash", "bin/sh"),
        Entry::hardlink("zz", "bin/sh"),
        Entry::dir("dev"),
        Entry::device(b'4', "dev/vda", 254, 1_048_575),
        Entry::device(b'3', "dev/null", 1, 3),
        Entry::hardlink("dev/zero-link", "dev/null"),
        Entry::device(b'6', "pipe", 0, 0),
        Entry::symlink("link", "bin/sh"),
        Entry::hardlink("link2", "link"),
        Entry::file("three", "123").owner(70_000, 80_000),
        Entry::file("empty", ""),
        Entry::hardlink("empty2", "empty"),
        Entry::file(b"\xf0\x9f\xa6\x80 and \xff", "crab"),
    ])
}

fn image(output: Output) -> Vec<u8> {
    let tree = merge(&[layer()], Limits::default()).unwrap();
    cpio_with(
        tree,
        &ImageOptions {
            output,
            source_date_epoch: None,
        },
    )
}

fn extract_with(
    program: &str,
    arguments: &[&str],
    directory: &Path,
    bytes: &[u8],
) -> std::path::PathBuf {
    let root = directory.join(program);
    std::fs::create_dir(&root).unwrap();
    run(program, arguments, &root, bytes);
    root
}

#[test]
fn gnu_cpio_and_bsdtar_extract_the_same_tree() {
    if !can_run(&["cpio", "bsdtar"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bytes = image(Output::Plain);
    let cpio = extract_with("cpio", &["-idm", "--quiet"], directory.path(), &bytes);
    let bsdtar = extract_with("bsdtar", &["-xpf", "-"], directory.path(), &bytes);
    let ignore = Ignore {
        mtimes: true,
        root: true,
    };
    let (cpio, bsdtar) = (snapshot(&cpio, ignore), snapshot(&bsdtar, ignore));
    assert_same(&cpio, &bsdtar, ["cpio", "bsdtar"]);
    assert!(
        cpio["zz"].contains("200000 bytes") && cpio["zz"].ends_with("link 3 of bin/ash"),
        "{}",
        cpio["zz"]
    );
    assert!(
        cpio["dev/zero-link"].ends_with("link 2 of dev/null"),
        "{}",
        cpio["dev/zero-link"]
    );
    assert!(
        cpio["empty2"].ends_with("link 2 of empty"),
        "{}",
        cpio["empty2"]
    );
    assert_eq!(cpio.len(), 18);
}

#[test]
fn gnu_cpio_lists_sorted_names_and_no_warning() {
    if !can_run(&["cpio"]) {
        return;
    }
    let bytes = image(Output::Plain);
    assert_eq!(bytes.len() % 4, 0);
    let listed = run("cpio", &["-it", "--quiet"], Path::new("/"), &bytes);
    let names: Vec<&[u8]> = listed
        .split(|byte| *byte == b'\n')
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.is_sorted());
    assert_eq!(names.len(), 19);
}

#[test]
fn two_builds_give_the_same_bytes() {
    for output in [Output::Plain, Output::Zstd { level: 3 }, Output::Lz4] {
        assert!(image(output) == image(output), "{output:?}");
    }
}

#[test]
fn compressed_images_decompress_to_the_plain_one() {
    if !can_run(&["zstd", "lz4"]) {
        return;
    }
    let plain = image(Output::Plain);
    let zstd = image(Output::Zstd { level: 19 });
    let lz4 = image(Output::Lz4);
    assert_eq!((zstd.len() % 4, lz4.len() % 4), (0, 0));
    assert!(zstd.len() < plain.len() / 2 && lz4.len() < plain.len() / 2);
    // The decompressors do not know segments: their padding is cut off.
    let unpadded = |bytes: &[u8]| {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        (end..=bytes.len())
            .map(|end| bytes[..end].to_vec())
            .collect::<Vec<_>>()
    };
    let decodes = |program: &str, bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        unpadded(bytes).into_iter().any(|bytes| {
            let path = directory.path().join("image");
            std::fs::write(&path, bytes).unwrap();
            let output = std::process::Command::new(program)
                .arg("-dc")
                .arg(&path)
                .output()
                .unwrap();
            output.status.success() && output.stdout == plain
        })
    };
    assert!(decodes("zstd", &zstd));
    assert!(decodes("lz4", &lz4));
}

#[test]
fn a_zstd_level_out_of_range_is_refused() {
    for level in [0, 20, -1] {
        let tree = merge(&[], Limits::default()).unwrap();
        let options = ImageOptions {
            output: Output::Zstd { level },
            source_date_epoch: None,
        };
        let config = cloude_protocol::boot::ImageConfig::default();
        let error = cloude_initramfs_builder::archive::write_image(
            tree,
            &config,
            &options,
            std::io::sink(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("zstd level {level} is out of range: give 1 to 19")
        );
    }
}

#[test]
fn every_compression_lists_the_same_entries() {
    use std::io::Write;
    let plain = image(Output::Plain);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let names = |bytes: &[u8]| list(bytes).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let expected = names(&plain);
    assert_eq!(expected.len(), 19);
    for bytes in [
        image(Output::Zstd { level: 1 }),
        image(Output::Lz4),
        gzip.finish().unwrap(),
    ] {
        assert_eq!(names(&bytes), expected);
    }
}

#[test]
fn archives_of_gnu_cpio_are_listed() {
    if !can_run(&["cpio"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), "12345").unwrap();
    std::fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
    std::os::unix::fs::symlink("a", directory.path().join("c")).unwrap();
    let bytes = run(
        "cpio",
        &["-o", "-H", "newc", "--quiet"],
        directory.path(),
        b"a\nb\nc\n",
    );
    let listed: Vec<_> = list(&bytes[..]).unwrap().map(Result::unwrap).collect();
    let names: Vec<_> = listed.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(names, [b"a", b"b", b"c"]);
    assert_eq!(listed[2].target.as_deref(), Some(&b"a"[..]));
    assert_eq!(listed[0].header.ino, listed[1].header.ino);
}

#[test]
fn a_damaged_image_is_an_error_and_not_a_shorter_list() {
    let plain = image(Output::Plain);
    let zstd = image(Output::Zstd { level: 3 });
    for bytes in [
        &plain[..plain.len() / 2],
        &zstd[..zstd.len() / 2],
        b"junk that is no archive",
    ] {
        let result: std::io::Result<Vec<_>> = list(bytes).and_then(|entries| entries.collect());
        assert!(result.is_err());
    }
}

#[test]
fn the_summary_counts_what_was_written() {
    let tree = merge(&[layer()], Limits::default()).unwrap();
    let mut out = Vec::new();
    let config = cloude_protocol::boot::ImageConfig::default();
    let summary = cloude_initramfs_builder::archive::write_image(
        tree,
        &config,
        &ImageOptions::default(),
        &mut out,
    )
    .unwrap();
    assert_eq!(summary.entries, 19);
    // bin/ash, zz, dev/zero-link and empty2 are hard links; each symlink has an inode.
    assert_eq!(summary.inodes, 15);
    assert_eq!(summary.archive_bytes, out.len() as u64);
    assert_eq!(summary.cpio_bytes, out.len() as u64);
    let json = 200_000 + 3 + 4;
    assert!(summary.file_bytes > json && summary.file_bytes < json + 200);
    // bin/sh has 49 pages; three, the crab and image.json have one each.
    assert_eq!(summary.unpacked_bytes, (49 + 3) * 4096);
}
