//! An image with whiteouts, hard links, special modes and odd owners: pulled with a password, built, booted and
//! listed in the guest. The tree must be the one that `umoci unpack` creates.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloude_e2e::oci::{Layer, write_layout};
use cloude_e2e::registry::Registry;
use cloude_e2e::{binaries, cloude, guest, host};

/// Three layers: the upper two replace, hide, remove and link entries of the lower ones.
fn layers(lister: &[u8]) -> Vec<Layer> {
    let root = (0, 0);
    let bottom = Layer::default()
        .directory("bin", 0o755, root)
        .directory("srv", 0o755, root)
        .directory("srv/kept", 0o750, (1000, 1001))
        .file("srv/kept/one", 0o640, (1000, 1001), b"one")
        .directory("srv/hidden", 0o755, root)
        .file("srv/hidden/below", 0o644, root, b"not to be seen")
        .directory("srv/hidden/deep", 0o755, root)
        .file(
            "srv/hidden/deep/below",
            0o644,
            root,
            b"not to be seen either",
        )
        .file("srv/removed", 0o644, root, b"removed above")
        .directory("srv/gone", 0o755, root)
        .file("srv/gone/with-it", 0o644, root, b"gone")
        .file("srv/becomes-directory", 0o644, root, b"a file at first")
        .directory("srv/becomes-file", 0o755, root)
        .file("srv/becomes-file/inside", 0o644, root, b"vanishes")
        .file("srv/replaced", 0o600, (5, 6), b"old")
        .file("srv/linked", 0o644, (7, 8), b"three names")
        .hardlink("srv/kept/linked-too", "srv/linked")
        .symlink("srv/dangling", "nowhere/at all");
    let middle = Layer::default()
        .directory("srv", 0o755, root)
        .whiteout("srv", "removed")
        .whiteout("srv", "gone")
        .directory("srv/hidden", 0o711, (3, 4))
        .opaque("srv/hidden")
        .file("srv/hidden/above", 0o644, root, b"all that is seen")
        .whiteout("srv", "becomes-directory")
        .directory("srv/becomes-directory", 0o700, root)
        .file("srv/becomes-directory/inside", 0o644, root, b"new")
        .whiteout("srv", "becomes-file")
        .file("srv/becomes-file", 0o644, root, b"a file at last")
        .file(
            "srv/replaced",
            0o4711,
            (4_000_000_000, 3_999_999_999),
            b"new, setuid, odd owners",
        );
    let top = Layer::default()
        .directory("srv", 0o755, root)
        .directory("srv/sticky", 0o1777, root)
        .file("srv/setgid", 0o2755, (65534, 65534), b"")
        .hardlink("srv/third-name", "srv/kept/linked-too")
        .symlink("srv/absolute", "/srv/kept/one")
        .fifo("srv/pipe", 0o620)
        .file("srv/naïve name", 0o644, (12, 13), &[0xff; 70_000])
        .file("lister", 0o755, root, lister);
    vec![bottom, middle, top]
}

/// Compiles lister.c. It is static, because the image has no libraries.
fn lister(folder: &Path) -> PathBuf {
    let path = folder.join("lister");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lister.c");
    host::run(
        "gcc",
        &[
            "-static",
            "-O2",
            "-o",
            path.to_str().unwrap(),
            source.to_str().unwrap(),
        ],
    );
    path
}

/// The lister's lines by path. An inode number is replaced by the first path that has it. Entries of the kernel
/// (`dev`, `root`) and of the agent (`.cloude`) are left out, because they are not in the image.
fn entries(text: &str) -> BTreeMap<String, String> {
    assert!(
        text.contains("\nEND") || text.contains("\rEND"),
        "the listing is cut off: {text}"
    );
    let mut entries = BTreeMap::new();
    for line in text.lines() {
        let Some(entry) = line.trim_end().strip_prefix("ENTRY /") else {
            continue;
        };
        let (path, rest) = entry.split_once(" mode=").unwrap();
        let theirs = ["dev", "root", ".cloude"]
            .iter()
            .any(|name| path == *name || path.starts_with(&format!("{name}/")));
        if !theirs {
            entries.insert(path.to_owned(), rest.to_owned());
        }
    }
    let inode = |rest: &str| {
        rest.split(" inode=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap()
            .to_owned()
    };
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for (path, rest) in &entries {
        first.entry(inode(rest)).or_insert(path.clone());
    }
    for rest in entries.values_mut() {
        let number = inode(rest);
        if number != "0" {
            *rest = rest.replace(
                &format!("inode={number} "),
                &format!("inode=of {} ", first[&number]),
            );
        }
    }
    entries
}

fn build(registry: &Registry, reference: &str, folder: &Path, number: u32) -> Vec<u8> {
    let output = folder.join(format!("image-{number}.cpio"));
    // A separate cache for each build, so that the second one pulls again.
    let status = Command::new(binaries::binary("cloude-initramfs"))
        .args(["build", reference, "--quiet", "--output"])
        .arg(&output)
        .env("CLOUDE_CACHE_DIR", folder.join(format!("cache-{number}")))
        .env("DOCKER_CONFIG", registry.docker_config())
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(output).unwrap()
}

#[test]
fn a_booted_image_matches_umoci_and_builds_are_reproducible() {
    binaries::require_kvm();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let program = lister(folder);
    let layout = folder.join("layout");
    write_layout(
        &layout,
        "awkward",
        layers(&std::fs::read(&program).unwrap()),
    );
    let registry = Registry::start();
    let reference = registry.push(&layout, "awkward", "test/awkward");

    let first = build(&registry, &reference, folder, 1);
    let second = build(&registry, &reference, folder, 2);
    assert!(
        first == second,
        "two builds differ: {} and {} bytes",
        first.len(),
        second.len()
    );

    let bundle = folder.join("bundle");
    host::run(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{}:awkward", layout.display()),
            bundle.to_str().unwrap(),
        ],
    );
    let expected = entries(&host::run(
        program.to_str().unwrap(),
        &[bundle.join("rootfs").to_str().unwrap()],
    ));
    assert_eq!(expected.len(), 20, "umoci unpacked {expected:#?}");

    let image = folder.join("image-1.cpio");
    let output = guest::vmm(&binaries::kernel(), &[&image])
        .args(["--memory", "256", "--init", "/lister"])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        cloude::describe(&output)
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    let booted = entries(&printed);

    for (path, entry) in &expected {
        assert_eq!(booted.get(path), Some(entry), "{path}: {printed}");
    }
    let more: Vec<&String> = booted
        .keys()
        .filter(|path| !expected.contains_key(*path))
        .collect();
    assert!(more.is_empty(), "not in the image: {more:?}");
    println!("{} entries are the same", expected.len());
}

#[test]
fn a_missing_password_error_names_docker_login() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    write_layout(
        &layout,
        "small",
        vec![Layer::default().file("x", 0o644, (0, 0), b"x")],
    );
    let registry = Registry::start();
    let reference = registry.push(&layout, "small", "test/small");
    let output = Command::new(binaries::binary("cloude-initramfs"))
        .args(["build", &reference, "--output"])
        .arg(folder.path().join("x.cpio"))
        .env("CLOUDE_CACHE_DIR", folder.path().join("cache"))
        .env("DOCKER_CONFIG", folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", cloude::describe(&output));
    let message = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(
        message.contains("without a password") && message.contains("docker login"),
        "{message}"
    );
}
