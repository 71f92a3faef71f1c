//! Pulls from a real registry on loopback.
#![allow(clippy::unwrap_used)]

mod registry_support;

use std::fs;
use std::sync::atomic::Ordering;

use registry_support::{Layout, Packing, Proxy, Registry, Tool, contains, noise};

/// base64 of `someone:secret` and of `someone:wrong`.
const RIGHT: &str = "c29tZW9uZTpzZWNyZXQ=";
const WRONG: &str = "c29tZW9uZTp3cm9uZw==";

fn three_layers() -> Layout {
    Layout::of(&[
        (Packing::Gzip, &[("a", b"from gzip")]),
        (Packing::Zstd, &[("b", b"from zstd")]),
        (Packing::Plain, &[("c", b"from plain")]),
    ])
}

#[test]
fn a_missing_password_is_reported_with_the_way_to_log_in() {
    let registry = Registry::start(true);
    registry.push(three_layers().path(), "some/app:v1");
    let tool = Tool::new();
    let image = format!("{}/some/app:v1", registry.address);

    let without = tool.fail(&[&image]);
    assert!(
        without.contains(&format!("docker login {}", registry.address)),
        "{without}"
    );
    assert!(without.contains("without a password"), "{without}");

    tool.log_in(&registry.address, WRONG);
    let wrong = tool.fail(&[&image]);
    assert!(wrong.contains("with the stored password"), "{wrong}");

    tool.log_in(&registry.address, RIGHT);
    let archive = tool.build(&[&image]);
    for text in ["from gzip", "from zstd", "from plain", "WHO=test"] {
        assert!(contains(&archive, text), "{text}");
    }
}

#[test]
fn tag_digest_and_local_layout_give_the_same_bytes() {
    let registry = Registry::start(false);
    let layout = three_layers();
    registry.push(layout.path(), "app:v1");
    let tar = layout.path().with_extension("tar");
    let mut command = std::process::Command::new("tar");
    command
        .arg("-C")
        .arg(layout.path())
        .arg("-cf")
        .arg(&tar)
        .arg(".");
    assert!(command.status().unwrap().success());
    let tool = Tool::new();

    let by_tag = tool.build(&[&format!("{}/app:v1", registry.address)]);
    let by_digest = tool.build(&[&format!(
        "{}/app@{}",
        registry.address,
        layout.manifest_digest()
    )]);
    let from_dir = tool.build(&[&format!("oci:{}", layout.path().display())]);
    let from_tar = tool.build(&[tar.to_str().unwrap()]);

    fs::remove_file(tar).unwrap();
    assert!(by_tag == by_digest && by_tag == from_dir && by_tag == from_tar);
}

#[test]
fn a_docker_archive_gives_the_same_files() {
    let layout = Layout::of(&[
        (Packing::Gzip, &[("a", b"one")]),
        (Packing::Gzip, &[("b", b"two")]),
    ]);
    let tool = Tool::new();
    let archive = tool.dir.path().join("saved.tar");
    let output = std::process::Command::new("skopeo")
        .args(["copy", "-q"])
        .arg(format!("oci:{}", layout.path().display()))
        .arg(format!("docker-archive:{}:app:v1", archive.display()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let from_layout = tool.build(&[layout.path().to_str().unwrap()]);
    let from_archive = tool.build(&[&format!("docker-archive:{}", archive.display())]);

    assert!(from_layout == from_archive);
}

#[test]
fn the_platform_chooses_from_an_index() {
    let registry = Registry::start(false);
    let mut layout = Layout::of(&[(Packing::Gzip, &[("a", b"for amd64")])]);
    layout.add("arm64", &[(Packing::Gzip, &[("a", b"for arm64")])]);
    registry.push(layout.path(), "app:v1");
    let tool = Tool::new();
    let image = format!("{}/app:v1", registry.address);

    assert!(contains(&tool.build(&[&image]), "for amd64"));
    assert!(contains(
        &tool.build(&[&image, "--platform", "linux/arm64"]),
        "for arm64"
    ));
    let none = tool.fail(&[&image, "--platform", "linux/s390x"]);
    assert!(none.contains("linux/amd64, linux/arm64"), "{none}");
}

#[test]
fn a_broken_transfer_is_resumed() {
    let registry = Registry::start(false);
    let bytes = noise(3_000_000);
    let layout = Layout::of(&[(Packing::Gzip, &[("noise", &bytes)])]);
    registry.push(layout.path(), "app:v1");
    let proxy = Proxy::start(&registry.address, 3, 500_000);
    let tool = Tool::new();

    let archive = tool.build(&[&format!("{}/app:v1", proxy.address)]);

    assert!(
        archive
            .windows(4096)
            .any(|window| window == &bytes[bytes.len() - 4096..])
    );
    // Requests: the configuration, the layer, and the layer again after each of three breaks.
    assert_eq!(proxy.blob_requests.load(Ordering::SeqCst), 5);
}

#[test]
fn the_next_run_resumes_a_transfer_that_always_breaks() {
    let registry = Registry::start(false);
    let bytes = noise(2_000_000);
    let layout = Layout::of(&[(Packing::Gzip, &[("noise", &bytes)])]);
    registry.push(layout.path(), "app:v1");
    let tool = Tool::new();
    let partial = tool
        .cache()
        .join("blobs/sha256")
        .join(&layout.layers[0][7..])
        .with_extension("partial");
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    // A killed run has left the first half of the blob.
    let blob = fs::read(registry.blob_file(&layout.layers[0])).unwrap();
    fs::write(&partial, &blob[..blob.len() / 2]).unwrap();

    let archive = tool.build(&[&format!("{}/app:v1", registry.address)]);

    assert!(archive.windows(4096).any(|window| window == &bytes[..4096]));
    assert!(!partial.exists() && partial.with_extension("").exists());
}

#[test]
fn a_corrupt_partial_file_is_fetched_again() {
    let registry = Registry::start(false);
    let layout = Layout::of(&[(Packing::Gzip, &[("noise", &noise(1_000_000))])]);
    registry.push(layout.path(), "app:v1");
    let tool = Tool::new();
    let partial = tool
        .cache()
        .join("blobs/sha256")
        .join(&layout.layers[0][7..])
        .with_extension("partial");
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, vec![7; 1000]).unwrap();

    tool.build(&[&format!("{}/app:v1", registry.address)]);

    assert!(!partial.exists());
}

#[test]
fn two_processes_share_one_download() {
    let registry = Registry::start(false);
    let layout = Layout::of(&[(Packing::Gzip, &[("noise", &noise(5_000_000))])]);
    registry.push(layout.path(), "app:v1");
    let proxy = Proxy::start(&registry.address, 0, 0);
    let tool = Tool::new();
    let image = format!("{}/app:v1", proxy.address);
    let start = |name: &str| {
        let out = tool.dir.path().join(name);
        tool.command(&["build", &image, "-o", out.to_str().unwrap()])
            .spawn()
            .unwrap()
    };

    let (mut first, mut second) = (start("1"), start("2"));
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());

    let read = |name| fs::read(tool.dir.path().join(name)).unwrap();
    assert!(read("1") == read("2"));
    // Requests: the configuration for each process, and the layer once.
    assert_eq!(proxy.blob_requests.load(Ordering::SeqCst), 3);
}

#[test]
fn a_damaged_blob_is_refused_and_not_stored() {
    let registry = Registry::start(false);
    let layout = Layout::of(&[(Packing::Plain, &[("noise", &noise(100_000))])]);
    registry.push(layout.path(), "app:v1");
    let file = registry.blob_file(&layout.layers[0]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let tool = Tool::new();

    let stderr = tool.fail(&[&format!("{}/app:v1", registry.address)]);

    assert!(
        stderr.contains(&layout.layers[0]) && stderr.contains("instead of"),
        "{stderr}"
    );
    let blob = tool
        .cache()
        .join("blobs/sha256")
        .join(&layout.layers[0][7..]);
    assert!(!blob.exists() && !blob.with_extension("partial").exists());
}

#[test]
fn a_corrupt_blob_of_the_cache_is_fetched_again() {
    let registry = Registry::start(false);
    let layout = three_layers();
    registry.push(layout.path(), "app:v1");
    let tool = Tool::new();
    let image = format!("{}/app:v1", registry.address);
    let good = tool.build(&[&image]);
    let blob = tool
        .cache()
        .join("blobs/sha256")
        .join(&layout.layers[0][7..]);
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&blob, bytes).unwrap();

    assert!(tool.build(&[&image]) == good);
}

#[test]
fn a_missing_manifest_is_named() {
    let registry = Registry::start(false);
    registry.push(three_layers().path(), "app:v1");
    let stderr = Tool::new().fail(&[&format!("{}/app:v2", registry.address)]);
    assert!(stderr.contains("has no app/manifests/v2"), "{stderr}");
}

#[test]
fn plain_http_is_refused_outside_of_loopback() {
    let tool = Tool::new();
    let stderr = tool.fail(&["python:3", "--mirror", "docker.io=http://10.255.255.1:5000"]);
    assert!(
        stderr.contains("refusing plain HTTP to 10.255.255.1:5000"),
        "{stderr}"
    );
}

#[test]
fn a_mirror_is_tried_before_the_registry() {
    let registry = Registry::start(false);
    registry.push(three_layers().path(), "library/thing:v1");
    let tool = Tool::new();
    let mirror = format!("docker.io=http://{}", registry.address);
    assert!(contains(
        &tool.build(&["thing:v1", "--mirror", &mirror]),
        "from zstd"
    ));
}
