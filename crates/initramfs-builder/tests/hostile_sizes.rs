//! Wrong sizes, decompression bombs, and limits on bytes, entries and lookups.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use std::cell::Cell;
use std::io::{self, Read, Write};

use cloude_initramfs_builder::layer::{Compression, Context, Layer, LayerError};
use cloude_initramfs_builder::limits::{LimitExceeded, Limits};
use merge_support::*;

/// A reader that counts the bytes read.
struct Counting<R>(R, std::sync::Arc<std::sync::atomic::AtomicU64>);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1
            .fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(count)
    }
}

fn read(reader: impl Read + Send, limits: Limits) -> Result<Layer, LayerError> {
    Layer::read(
        reader,
        Compression::Detect,
        &Context::new(limits, std::env::temp_dir()),
    )
}

#[test]
fn different_sizes_in_header_and_pax_are_refused() {
    for (header, pax) in [(10u64, "1000"), (1000, "10")] {
        let layer = Tar::new()
            .pax(&[("size", pax.as_bytes())])
            .add(Entry {
                size: Some(header),
                ..Entry::file("a", "x".repeat(1000))
            })
            .end();
        let message = refused(&[layer]);
        assert!(
            message.contains(&header.to_string()) && message.contains(pax),
            "{message}"
        );
    }
}

#[test]
fn pax_sizes_that_agree_or_stand_alone_are_used() {
    for header in [0u64, 600] {
        let layer = Tar::new()
            .pax(&[("size", b"600")])
            .add(Entry {
                size: Some(header),
                ..Entry::file("a", "x".repeat(600))
            })
            .add(Entry::file("b", "after"))
            .end();
        let lines = lines(&[layer]);
        assert!(lines.contains(&"100644 0:0 600 a".to_owned()), "{lines:?}");
        assert!(lines.contains(&"100644 0:0 5 b".to_owned()), "{lines:?}");
    }
}

#[test]
fn negative_and_malformed_sizes_are_refused() {
    for value in ["-1", "99999999999999999999", "0x10", "1 2"] {
        let layer = Tar::new()
            .pax(&[("size", value.as_bytes())])
            .add(Entry::file("a", ""))
            .end();
        assert!(refused(&[layer]).contains("`size`"), "{value}");
    }
    let mut block = Tar::header(&Entry::file("a", ""));
    block[124..136].fill(0xff);
    checksum(&mut block);
    assert!(refused(&[Tar::new().raw(&block).end()]).contains("size in its header is negative"));
}

#[test]
fn the_size_of_an_entry_without_data_is_ignored() {
    let mut layer = Tar::new();
    for entry in [
        Entry::dir("d"),
        Entry::symlink("s", "d"),
        Entry::device(b'6', "p", 0, 0),
    ] {
        layer = layer.add(Entry {
            size: Some(1 << 30),
            ..entry
        });
    }
    assert_eq!(
        paths(&[layer.add(Entry::file("z", "")).end()]),
        ["d", "p", "s", "z"]
    );
}

#[test]
fn a_layer_that_ends_in_the_middle_of_an_entry_is_refused() {
    let whole = Tar::new()
        .pax(&[("mtime", b"5")])
        .add(Entry::file("a", "x".repeat(2000)))
        .0;
    let entry_starts = whole.len() - 512 - 2048;
    for length in [
        1,
        511,
        513,
        1000,
        entry_starts + 100,
        entry_starts + 513,
        whole.len() - 1,
    ] {
        let message = refused(&[whole[..length].to_vec()]);
        assert!(
            message.contains("ends in the middle"),
            "{length}: {message}"
        );
    }
}

#[test]
fn a_compressed_layer_that_is_cut_is_refused() {
    let plain = tar([Entry::file(
        "a",
        (0..100_000u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<_>>(),
    )]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for layer in [
        gzip.finish().unwrap(),
        zstd::encode_all(&plain[..], 1).unwrap(),
    ] {
        assert!(merge(&[layer[..layer.len() / 2].to_vec()], Limits::default()).is_err());
        assert!(merge(&[layer[..layer.len() - 1].to_vec()], Limits::default()).is_err());
        assert!(merge(&[layer], Limits::default()).is_ok());
    }
}

#[test]
fn random_bytes_are_refused() {
    assert!(refused(&[vec![b'x'; 2048]]).contains("checksum"));
    assert!(refused(&[b"\x1f\x8bnot gzip at all".to_vec()]).contains("cannot read the layer"));
    let mut flipped = tar([Entry::file("a", "")]);
    flipped[0] ^= 1;
    assert!(refused(&[flipped]).contains("checksum"));
}

/// 1 GiB of zeros, compressed in many members.
fn bomb(compress: impl Fn(&[u8]) -> Vec<u8>) -> impl Read + Send {
    let header = Tar::header(&Entry {
        size: Some(NEWC_MAX),
        ..Entry::file("zeros", "")
    });
    let mut start = compress(&header);
    let block = compress(&vec![0; 1 << 20]);
    for _ in 0..1024 {
        start.extend_from_slice(&block);
    }
    io::Cursor::new(start)
}

const NEWC_MAX: u64 = u32::MAX as u64;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn decompression_bombs_stop_at_the_ratio() {
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let bombs: [Box<dyn Read + Send>; 2] = [Box::new(bomb(gzip)), Box::new(bomb(zstd))];
    for bomb in bombs {
        match read(bomb, Limits::default()).unwrap_err() {
            LayerError::Limit(LimitExceeded::Ratio {
                unpacked, limit, ..
            }) => {
                assert_eq!(limit, 200);
                assert!(unpacked < 128 << 20, "{unpacked}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn unpacked_bytes_stop_at_the_limit() {
    let count = std::sync::Arc::default();
    let limits = Limits {
        max_unpacked_bytes: 1 << 20,
        ..Limits::default()
    };
    let endless = Tar::header(&Entry {
        size: Some(NEWC_MAX),
        ..Entry::file("a", "")
    });
    let endless = Counting(endless.chain(io::repeat(7)), std::sync::Arc::clone(&count));
    let error = read(endless, limits).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("larger than 1048576 bytes unpacked; raise max_unpacked_bytes"),
        "{error}"
    );
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) < 4 << 20);
}

#[test]
fn compressed_bytes_stop_at_the_limit() {
    let limits = Limits {
        max_compressed_bytes: 1 << 20,
        ..Limits::default()
    };
    // Xorshift noise, which does not compress.
    let mut state = 1u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    let noise: Vec<u8> = (0..2 << 20).map(|_| next()).collect();
    let layer = zstd::encode_all(&tar([Entry::file("a", noise)])[..], 1).unwrap();
    let error = read(&layer[..], limits).unwrap_err();
    assert!(
        matches!(
            error,
            LayerError::Limit(LimitExceeded::CompressedBytes { limit: 1_048_576 })
        ),
        "{error}"
    );
}

#[test]
fn limits_apply_to_all_layers_together() {
    let limits = Limits {
        max_entries: 3,
        ..Limits::default()
    };
    let layer = tar([Entry::file("a", ""), Entry::file("b", "")]);
    assert!(refused_with(&[layer.clone(), layer.clone()], limits).contains("more than 3 entries"));
    let limits = Limits {
        max_layers: 2,
        ..Limits::default()
    };
    let message = refused_with(&[layer.clone(), layer.clone(), layer], limits);
    assert!(
        message.contains("has 3 layers and the limit is 2"),
        "{message}"
    );
}

#[test]
fn endless_entries_stop_at_the_limit() {
    /// An endless stream of directory headers.
    struct Endless(Cell<u64>);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let number = self.0.get();
            self.0.set(number + 1);
            let header = Tar::header(&Entry::dir(format!("d{number}")));
            buffer[..512].copy_from_slice(&header);
            Ok(512)
        }
    }
    let count = std::sync::Arc::default();
    let endless = Counting(Endless(Cell::new(0)), std::sync::Arc::clone(&count));
    assert_eq!(Limits::default().max_entries, 1_000_000);
    let limits = Limits {
        max_entries: 20_000,
        ..Limits::default()
    };
    let error = read(endless, limits).unwrap_err();
    assert!(
        error.to_string().contains("more than 20000 entries"),
        "{error}"
    );
    let read = count.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 30_000 * 512, "{read}");
}

#[test]
fn implicit_directories_count_as_entries() {
    let deep = |prefix: usize| format!("{prefix}/{}", vec!["d"; 1000].join("/"));
    let layer = tar((0..20).map(|prefix| Entry::file(deep(prefix), "")));
    let limits = Limits {
        max_entries: 10_000,
        ..Limits::default()
    };
    assert!(refused_with(&[layer], limits).contains("more than 10000 entries"));
}

#[test]
fn names_in_memory_stop_at_the_limit() {
    let name = |number: usize| format!("{}/{number}", vec!["n".repeat(200); 15].join("/"));
    let layer = tar((0..100).map(|number| Entry::file(name(number), "")));
    let limits = Limits {
        max_metadata_bytes: 100_000,
        ..Limits::default()
    };
    assert!(refused_with(&[layer], limits).contains("max_metadata_bytes"));
}

#[test]
fn slow_merges_stop_at_the_limit_of_lookups() {
    let dots = "./".repeat(1000);
    let links = (0..30).map(|i| Entry::symlink(format!("s{i}"), format!("{dots}s{}", i + 1)));
    let layer = tar(links.chain((0..100).map(|i| Entry::file(format!("s0/f{i}"), ""))));
    let limits = Limits {
        max_lookups: 100_000,
        ..Limits::default()
    };
    assert!(refused_with(&[layer], limits.clone()).contains("more than 100000 directory lookups"));
    let opaque = (0..1000).map(|i| Entry::file(format!("f{i}"), ""));
    let opaque = opaque.chain((0..1000).map(|_| Entry::file(".wh..wh..opq", "")));
    assert!(refused_with(&[tar(opaque)], limits).contains("directory lookups"));
}

#[test]
fn large_extension_headers_are_refused_unread() {
    for flag in [b'x', b'g', b'L', b'K'] {
        let header = Entry {
            size: Some(8 << 30),
            ..Entry::new(flag, "x")
        };
        let message = refused(&[Tar::new().raw(&Tar::header(&header)).0]);
        assert!(
            message.contains("8589934592 bytes and the limit is 1048576"),
            "{message}"
        );
    }
}

#[test]
fn endless_extension_headers_stop_at_the_limit() {
    let limits = Limits {
        max_entries: 100,
        ..Limits::default()
    };
    let layer = (0..200)
        .fold(Tar::new(), |tar, _| tar.pax(&[("uid", b"1")]))
        .end();
    assert!(refused_with(&[layer], limits).contains("more than 100 entries"));
}

#[test]
fn files_over_4_gib_are_refused() {
    let header = Entry {
        size: Some(1 << 32),
        ..Entry::file("huge", "")
    };
    let message = refused(&[Tar::new().raw(&Tar::header(&header)).0]);
    for part in [
        "`huge`",
        "4294967296",
        "4294967295",
        "no initramfs can hold",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let limits = Limits {
        max_file_bytes: u64::MAX,
        ..Limits::default()
    };
    assert!(
        refused_with(&[Tar::new().raw(&Tar::header(&header)).0], limits).contains("4294967295")
    );
    let limits = Limits {
        max_file_bytes: 10,
        ..Limits::default()
    };
    let message = refused_with(&[tar([Entry::file("a", "12345678901")])], limits);
    assert!(
        message.contains("11 bytes and the limit is 10; raise max_file_bytes"),
        "{message}"
    );
}
