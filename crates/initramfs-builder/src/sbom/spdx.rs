//! SPDX 2.3 in JSON (spdx.github.io/spdx-spec/v2.3).

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::{Inventory, Kind, Package, System};

/// The value of a required field that this document does not answer.
const NO_ASSERTION: &str = "NOASSERTION";
const DOCUMENT_ID: &str = "SPDXRef-DOCUMENT";
const IMAGE_ID: &str = "SPDXRef-Image";

/// The subject of the document.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The image's name.
    pub name: &'a str,
    /// Its source, such as `docker.io/library/python:3.13-slim`.
    pub source: &'a str,
    /// `sha256:…` of its initramfs.
    pub archive_digest: &'a str,
    /// `sha256:…` of the manifest that it was built from, if it has one.
    pub digest: Option<&'a str>,
    /// When it was built, in seconds since 1970. The document has it as the time of its creation, so that one image
    /// has one document.
    pub built_at: u64,
}

/// An SPDX document: an image and the packages in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<SpdxPackage>,
    relationships: Vec<Relationship>,
}

#[derive(Debug, Serialize)]
struct CreationInfo {
    created: String,
    creators: [&'static str; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    supplier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: &'static str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: &'static str,
    relationship_type: &'static str,
    related_spdx_element: String,
}

impl Document {
    /// The document of an image.
    pub fn new(subject: &Subject<'_>, inventory: &Inventory) -> Self {
        let digest = hex(subject.archive_digest);
        let mut packages = vec![image(subject, digest)];
        let mut relationships = vec![relationship(DOCUMENT_ID, "DESCRIBES", IMAGE_ID.to_owned())];
        for (index, it) in inventory.packages.iter().enumerate() {
            let id = format!("SPDXRef-Package-{index}");
            relationships.push(relationship(IMAGE_ID, "CONTAINS", id.clone()));
            packages.push(package(id, it, inventory.system.as_ref()));
        }
        Document {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: DOCUMENT_ID,
            name: subject.name.to_owned(),
            // Unique, and by RFC 2606 nobody's.
            document_namespace: format!("https://cloude.invalid/spdx/{}-{digest}", subject.name),
            creation_info: CreationInfo {
                created: time(subject.built_at),
                creators: [concat!(
                    "Tool: cloude-initramfs-",
                    env!("CARGO_PKG_VERSION")
                )],
            },
            packages,
            relationships,
        }
    }
}

fn time(seconds: u64) -> String {
    // The latest time that humantime formats is in the year 9999.
    let seconds = seconds.min(253_402_300_799);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// The hexadecimal digits of `sha256:…`.
fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn relationship(from: &'static str, kind: &'static str, to: String) -> Relationship {
    Relationship {
        spdx_element_id: from,
        relationship_type: kind,
        related_spdx_element: to,
    }
}

fn image(subject: &Subject<'_>, digest: &str) -> SpdxPackage {
    SpdxPackage {
        id: IMAGE_ID.to_owned(),
        name: subject.name.to_owned(),
        version_info: subject.digest.map(str::to_owned),
        supplier: NO_ASSERTION.to_owned(),
        originator: None,
        download_location: NO_ASSERTION,
        files_analyzed: false,
        checksums: vec![Checksum {
            algorithm: "SHA256",
            checksum_value: digest.to_owned(),
        }],
        source_info: Some(format!("built from {}", subject.source)),
        license_concluded: NO_ASSERTION,
        license_declared: NO_ASSERTION,
        copyright_text: NO_ASSERTION,
        external_refs: Vec::new(),
        primary_package_purpose: Some("CONTAINER"),
    }
}

fn package(id: String, package: &Package, system: Option<&System>) -> SpdxPackage {
    let distributor = system.map(|system| format!("Organization: {}", system.name));
    let source = package.source.as_ref();
    SpdxPackage {
        id,
        name: package.name.clone(),
        version_info: Some(package.version.clone()),
        supplier: distributor.unwrap_or_else(|| NO_ASSERTION.to_owned()),
        originator: package.maintainer.as_deref().and_then(person),
        download_location: NO_ASSERTION,
        files_analyzed: false,
        checksums: Vec::new(),
        source_info: source.map(|source| format!("built from the source package {source}")),
        license_concluded: NO_ASSERTION,
        license_declared: NO_ASSERTION,
        copyright_text: NO_ASSERTION,
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl(package, system),
        }],
        primary_package_purpose: None,
    }
}

/// `Person: NAME (ADDRESS)` of `NAME <ADDRESS>`; none of anything else, which SPDX's form cannot hold.
fn person(maintainer: &str) -> Option<String> {
    let (name, address) = maintainer.strip_suffix('>')?.split_once('<')?;
    let (name, address) = (name.trim(), address.trim());
    let plain = |text: &str| !text.is_empty() && !text.contains(['(', ')', '<', '>']);
    let written = plain(name) && plain(address) && address.contains('@');
    written.then(|| format!("Person: {name} ({address})"))
}

/// The package URL (github.com/package-url/purl-spec).
fn purl(package: &Package, system: Option<&System>) -> String {
    let (kind, distribution) = match package.kind {
        Kind::Deb => ("deb", "debian"),
        Kind::Apk => ("apk", "alpine"),
    };
    let namespace = system.map_or(distribution, |system| &system.id);
    let mut purl = format!(
        "pkg:{kind}/{}/{}@{}",
        encode(&namespace.to_lowercase()),
        encode(&package.name.to_lowercase()),
        encode(&package.version)
    );
    let distro = system.filter(|system| !system.version.is_empty());
    let distro = distro.map(|system| format!("{}-{}", system.id, system.version));
    let architecture = Some(&package.architecture).filter(|it| !it.is_empty());
    // Qualifiers are sorted by their names.
    let qualifiers = [
        ("arch", architecture),
        ("distro", distro.as_ref()),
        ("upstream", package.source.as_ref()),
    ];
    let mut separator = '?';
    for (name, value) in qualifiers {
        if let Some(value) = value {
            purl += &format!("{separator}{name}={}", encode(value));
            separator = '&';
        }
    }
    purl
}

/// Percent-encoding (RFC 3986) of everything but the unreserved characters.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'-' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn libc() -> Package {
        Package {
            name: "libstdc++6".to_owned(),
            version: "1:14.2.0-19+b1~x".to_owned(),
            architecture: "amd64".to_owned(),
            kind: Kind::Deb,
            maintainer: Some("GCC (team) <gcc@debian.org>".to_owned()),
            source: Some("gcc-14".to_owned()),
        }
    }

    #[test]
    fn a_package_url_names_distribution_architecture_and_source() {
        let system = System {
            id: "debian".to_owned(),
            version: "13".to_owned(),
            name: "Debian".to_owned(),
        };
        assert_eq!(
            purl(&libc(), Some(&system)),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19%2Bb1~x?arch=amd64&distro=debian-13&upstream=gcc-14"
        );
    }

    #[test]
    fn a_maintainer_that_spdx_cannot_hold_is_left_out() {
        assert_eq!(
            person("A B <a@b.c>").as_deref(),
            Some("Person: A B (a@b.c)")
        );
        for other in ["A", "A <a>", "GCC (team) <gcc@debian.org>", "<a@b.c>", ""] {
            assert_eq!(person(other), None, "{other}");
        }
    }

    #[test]
    fn every_package_is_contained_in_the_image() {
        let inventory = Inventory {
            system: None,
            packages: vec![libc(), libc()],
        };
        let subject = Subject {
            name: "a",
            source: "debian:trixie",
            archive_digest: "sha256:00ff",
            digest: None,
            built_at: u64::MAX,
        };
        let document = Document::new(&subject, &inventory);
        let document = serde_json::to_value(&document).unwrap();
        let ids: Vec<_> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["SPDXID"].clone())
            .collect();
        let related: Vec<_> = document["relationships"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["relatedSpdxElement"].clone())
            .collect();
        assert_eq!(ids, related);
        assert_eq!(document["creationInfo"]["created"], "9999-12-31T23:59:59Z");
    }
}
