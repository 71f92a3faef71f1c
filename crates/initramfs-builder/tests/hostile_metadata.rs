//! Malformed owners, times, devices, headers and sparse maps.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod merge_support;

use cloude_initramfs_builder::limits::Limits;
use merge_support::*;

#[test]
fn owners_out_of_range_are_refused() {
    for (keyword, value) in [
        ("uid", "4294967296"),
        ("gid", "-1"),
        ("uid", "4294967295"),
        ("gid", "9223372036854775807"),
    ] {
        let layer = Tar::new()
            .pax(&[(keyword, value.as_bytes())])
            .add(Entry::file("a", ""))
            .end();
        let message = refused(&[layer]);
        assert!(
            message.contains(&format!(
                "its {keyword} is {value}; Linux has 0 to 4294967294"
            )),
            "{message}"
        );
    }
    let mut block = Tar::header(&Entry::file("a", ""));
    block[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
    checksum(&mut block);
    assert!(refused(&[Tar::new().raw(&block).end()]).contains("its uid is 4294967296"));
}

#[test]
fn times_out_of_range_are_clamped_and_counted() {
    let pax = |time: &[u8], name: &str| {
        Tar::new()
            .pax(&[("mtime", time)])
            .add(Entry::file(name, ""))
            .0
    };
    let mut negative = Tar::header(&Entry::file("c", ""));
    negative[136..148].fill(0xff);
    checksum(&mut negative);
    let layer = [
        pax(b"-5.5", "a"),
        pax(b"99999999999", "b"),
        Tar::new().raw(&negative).end(),
    ]
    .concat();
    let times: Vec<_> = entries(std::slice::from_ref(&layer))
        .into_iter()
        .filter(|entry| entry.path.len() == 1 && entry.path != b".")
        .map(|entry| entry.header.mtime)
        .collect();
    assert_eq!(times, [0, u32::MAX, 0]);
    assert_eq!(
        merge(&[layer], Limits::default())
            .unwrap()
            .warnings()
            .mtimes_clamped,
        3
    );
}

#[test]
fn devices_out_of_range_are_refused() {
    for (major, minor) in [(4096, 0), (0, 1 << 20)] {
        let message = refused(&[tar([Entry::device(b'3', "d", major, minor)])]);
        assert!(
            message.contains(&format!("device {major}:{minor}")),
            "{message}"
        );
    }
    let lines = lines(&[tar([Entry::device(b'4', "d", 4095, (1 << 20) - 1)])]);
    assert!(lines.contains(&"60600 0:0 0 d".to_owned()), "{lines:?}");
}

#[test]
fn unknown_type_flags_are_refused() {
    for flag in [b'V', b'M', b'N', b'D', b'A', 0xff] {
        assert!(
            refused(&[tar([Entry::new(flag, "a")])]).contains("type flag"),
            "{flag}"
        );
    }
}

#[test]
fn modes_are_masked_to_12_bits() {
    let layer = tar([Entry::file("a", "").mode(0o120_755)]);
    assert!(lines(&[layer]).contains(&"100755 0:0 0 a".to_owned()));
}

#[test]
fn fields_that_are_not_numbers_are_refused() {
    for (range, name) in [
        (100..107, "mode"),
        (108..115, "uid"),
        (136..147, "mtime"),
        (124..135, "size"),
    ] {
        let mut block = Tar::header(&Entry::file("a", ""));
        block[range].fill(b'9');
        checksum(&mut block);
        let message = refused(&[Tar::new().raw(&block).end()]);
        let named = message.contains(&format!("the {name} in its header"))
            || message.contains(&format!("its {name}"));
        assert!(named, "{name}: {message}");
    }
}

#[test]
fn global_headers_are_refused_except_for_comments() {
    let global = |keyword: &str| {
        Tar::new()
            .pax_flag(b'g', &[(keyword, b"1")])
            .add(Entry::file("a", ""))
            .end()
    };
    assert_eq!(paths(&[global("comment")]), ["a"]);
    for keyword in ["path", "size", "uid"] {
        assert!(refused(&[global(keyword)]).contains(&format!("sets `{keyword}`")));
    }
}

#[test]
fn an_entry_after_a_single_block_of_zeros_is_refused() {
    let hidden = tar([Entry::file("hidden", "")]);
    let one = [tar([Entry::file("a", "")]), vec![]].concat();
    let one = [&one[..512], &[0; 512], &hidden[..]].concat();
    assert!(refused(&[one]).contains("block of zeros"));
    let two = [tar([Entry::file("a", "")]), hidden].concat();
    assert_eq!(paths(&[two]), ["a"]);
}

/// The content of a file in an image.
fn content(layer: Vec<u8>, name: &str) -> Vec<u8> {
    let bytes = cpio(merge(&[layer], Limits::default()).unwrap());
    let at = bytes
        .windows(name.len())
        .position(|window| window == name.as_bytes())
        .unwrap();
    let size = &bytes[at - 110 + 54..at - 110 + 62];
    let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
    let start = (at + name.len() + 1).next_multiple_of(4);
    bytes[start..start + size].to_vec()
}

/// `head`, a hole, `tail`, a hole: 1,000,000 bytes, of which 8 are stored.
fn sparse_content() -> Vec<u8> {
    let mut content = vec![0; 1_000_000];
    content[..4].copy_from_slice(b"head");
    content[500_000..500_004].copy_from_slice(b"tail");
    content
}

#[test]
fn sparse_files_of_every_form_are_expanded() {
    let data = b"headtail";
    let pax_0_0 = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"1000000"),
            ("GNU.sparse.numblocks", b"3"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", b"500000"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", b"1000000"),
            ("GNU.sparse.numbytes", b"0"),
        ])
        .add(Entry::file("sparse-file", data));
    let pax_0_1 = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"1000000"),
            ("GNU.sparse.numblocks", b"3"),
            ("GNU.sparse.map", b"0,4,500000,4,1000000,0"),
            ("GNU.sparse.name", b"sparse-file"),
        ])
        .add(Entry::file("GNUSparseFile.0/x", data));
    let mut with_map = b"3\n0\n4\n500000\n4\n1000000\n0\n".to_vec();
    with_map.resize(512, 0);
    with_map.extend_from_slice(data);
    let pax_1_0 = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse-file"),
            ("GNU.sparse.realsize", b"1000000"),
        ])
        .add(Entry::file("GNUSparseFile.0/x", with_map));
    let mut old = Tar::header(&Entry {
        data: data.to_vec(),
        ..Entry::new(b'S', "sparse-file")
    });
    for (index, value) in [(0, 0), (1, 4), (2, 500_000), (3, 4), (4, 1_000_000), (5, 0)] {
        let start = 386 + index * 12;
        old[start..start + 11].copy_from_slice(format!("{value:011o}").as_bytes());
    }
    old[483..494].copy_from_slice(format!("{:011o}", 1_000_000).as_bytes());
    checksum(&mut old);
    let old = Tar::new().raw(&old).data(data);
    for tar in [pax_0_0, pax_0_1, pax_1_0, old] {
        let layer = tar.add(Entry::file("after", "x")).end();
        assert_eq!(
            paths(std::slice::from_ref(&layer)),
            ["after", "sparse-file"]
        );
        assert!(content(layer, "sparse-file") == sparse_content());
    }
}

#[test]
fn sparse_files_of_gnu_tar_are_expanded() {
    use merge_support::compare::{can_run, run};
    use std::os::unix::fs::FileExt;
    if !can_run(&["tar"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("sparse-file")).unwrap();
    file.set_len(3_000_000).unwrap();
    // More segments than one header of the old form holds.
    for piece in 0..60u8 {
        file.write_all_at(&[piece + 1; 4096], u64::from(piece) * 45_056)
            .unwrap();
    }
    let expected = std::fs::read(directory.path().join("sparse-file")).unwrap();
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for form in forms {
        let arguments = [form, &["-S", "-cf", "-", "sparse-file"]].concat();
        let layer = run("tar", &arguments, directory.path(), b"");
        assert!(layer.len() < 600_000, "{form:?} is sparse: {}", layer.len());
        assert!(content(layer, "sparse-file") == expected, "{form:?}");
    }
}

#[test]
fn wrong_sparse_maps_are_refused() {
    let sparse = |map: &str, size: &str, data: &str| {
        Tar::new()
            .pax(&[
                ("GNU.sparse.size", size.as_bytes()),
                ("GNU.sparse.map", map.as_bytes()),
            ])
            .add(Entry::file("s", data))
            .end()
    };
    for (map, size, data) in [
        ("0,4,2,4", "100", "12345678"),
        ("50,4,0,4", "100", "12345678"),
        ("98,4", "100", "1234"),
        ("0,4", "100", "12345"),
        ("0", "100", ""),
        ("9223372036854775807,4", "100", "1234"),
        ("x,4", "100", "1234"),
    ] {
        let message = refused(&[sparse(map, size, data)]);
        assert!(message.contains("sparse map"), "{map}: {message}");
    }
}

#[test]
fn wrong_sparse_maps_before_the_data_are_refused() {
    let sparse = |map: &[u8]| {
        let mut data = map.to_vec();
        data.resize(512, 0);
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"10"),
            ])
            .add(Entry::file("s", data))
            .end()
    };
    for map in [&b"2\n0\n0\n"[..], b"x\n", b"", b"99999999999999999999999\n"] {
        assert!(
            refused(&[sparse(map)]).contains("sparse map"),
            "{}",
            map.escape_ascii()
        );
    }
    assert!(refused(&[sparse(b"9999999\n")]).contains("more than 65536 segments"));
    let unknown = Tar::new()
        .pax(&[("GNU.sparse.major", b"2")])
        .add(Entry::file("s", ""))
        .end();
    assert!(refused(&[unknown]).contains("form 2.0"));
}

#[test]
fn endless_holes_are_refused() {
    let hole = |tar: Tar, number: usize| {
        tar.pax(&[
            ("GNU.sparse.size", b"4294967295"),
            ("GNU.sparse.map", b"0,0"),
        ])
        .add(Entry::file(format!("s{number}"), ""))
    };
    let layer = (0..8).fold(Tar::new(), hole).end();
    assert!(refused(&[layer]).contains("max_unpacked_bytes"));
    let over = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"4294967296"),
            ("GNU.sparse.map", b"0,0"),
        ])
        .add(Entry::file("s", ""))
        .end();
    assert!(refused(&[over]).contains("4294967295"));
}
