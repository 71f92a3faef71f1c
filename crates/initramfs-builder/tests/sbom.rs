//! `cloude-initramfs sbom`: the SPDX document of an image, read back and checked by the SPDX project's own validator.
#![allow(clippy::unwrap_used)]

mod registry_support;

use std::path::Path;
use std::process::Command;

use registry_support::{Layout, Packing, Tool};
use serde_json::Value;

const STATUS: &[u8] = b"\
Package: zlib1g
Status: install ok installed
Maintainer: Mark Brown <broonie@debian.org>
Architecture: amd64
Source: zlib (1:1.3.dfsg-3)
Version: 1:1.3.dfsg-3+b1

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: bash
Status: install ok installed
Maintainer: \"quoted\" (team) <not an address>
Architecture: amd64
Version: 5.2.37-2
";
const OS_RELEASE: &[u8] = b"NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"13\"\n";
const INSTALLED: &[u8] = b"P:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\nm:Someone <a@alpine.org>\n\nP:busybox\nV:1.37.0-r12\nA:x86_64\n";

/// Builds an image of these files and returns its document.
fn sbom(tool: &Tool, files: &[(&str, &[u8])]) -> Vec<u8> {
    let layout = Layout::of(&[(Packing::Gzip, files)]);
    let source = format!("oci:{}", layout.path().display());
    assert!(
        tool.run(&["build", &source, "--name", "thing"])
            .status
            .success()
    );
    let output = tool.run(&["sbom", "thing", "--format", "spdx-json"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Checks a document with `pyspdxtools`, which tools/setup installs.
fn validate(document: &[u8]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let validator = root.join("target/python/bin/pyspdxtools");
    if !validator.exists() {
        eprintln!(
            "not validated: there is no {}: run tools/setup",
            validator.display()
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("thing.spdx.json");
    std::fs::write(&file, document).unwrap();
    let output = Command::new(validator)
        .arg("-i")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(document)
    );
}

fn purls(document: &Value) -> Vec<&str> {
    let packages = document["packages"].as_array().unwrap();
    packages
        .iter()
        .filter_map(|it| it["externalRefs"][0]["referenceLocator"].as_str())
        .collect()
}

#[test]
fn the_packages_of_a_debian_image_are_listed() {
    let tool = Tool::new();
    let files = [
        ("usr/lib/os-release", OS_RELEASE),
        ("var/lib/dpkg/status", STATUS),
    ];
    let document = sbom(&tool, &files);
    validate(&document);
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(
        purls(&document),
        [
            "pkg:deb/debian/bash@5.2.37-2?arch=amd64&distro=debian-13",
            "pkg:deb/debian/zlib1g@1%3A1.3.dfsg-3%2Bb1?arch=amd64&distro=debian-13&upstream=zlib",
        ]
    );
    let zlib = &document["packages"][2];
    assert_eq!(zlib["supplier"], "Organization: Debian GNU/Linux");
    assert_eq!(
        zlib["originator"],
        "Person: Mark Brown (broonie@debian.org)"
    );
}

#[test]
fn the_packages_of_an_alpine_image_are_listed() {
    let document = sbom(&Tool::new(), &[("lib/apk/db/installed", INSTALLED)]);
    validate(&document);
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(
        purls(&document),
        [
            "pkg:apk/alpine/busybox@1.37.0-r12?arch=x86_64",
            "pkg:apk/alpine/musl@1.2.5-r9?arch=x86_64"
        ]
    );
}

#[test]
fn hostile_package_fields_still_give_a_valid_document() {
    let fields = "Package: a/../\u{202e}\"\\\nVersion: \u{1}\u{7f} {{\nMaintainer: x (y) <z@(>\nArchitecture: ?&=#\n";
    let document = sbom(&Tool::new(), &[("var/lib/dpkg/status", fields.as_bytes())]);
    validate(&document);
    let document: Value = serde_json::from_slice(&document).unwrap();
    let purl = purls(&document)[0];
    assert!(
        purl.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"'),
        "{purl}"
    );
}

#[test]
fn an_image_without_packages_is_refused_with_the_reason() {
    let tool = Tool::new();
    let layout = Layout::of(&[(Packing::Gzip, &[("etc/motd", b"hello")])]);
    let source = format!("oci:{}", layout.path().display());
    tool.run(&["build", &source, "--name", "thing"]);
    for (image, reason) in [
        ("thing", "no package database"),
        ("other", "no image `other`"),
    ] {
        let output = tool.run(&["sbom", image]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(reason), "{said}");
    }
}
