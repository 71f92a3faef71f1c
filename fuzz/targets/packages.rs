//! Package databases of images, and the SPDX documents that are made of them.
#![no_main]

use cloude_fuzz::bounded;
use cloude_initramfs_builder::fuzzing::sbom;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A stanza of some bytes becomes a package of some hundred.
    bounded((1 << 20) + 400 * bytes.len(), || {
        for path in ["var/lib/dpkg/status", "lib/apk/db/installed"] {
            let document = sbom(path, bytes).expect("a database makes a document");
            let document = serde_json::to_value(&document).unwrap();
            for package in document["packages"].as_array().unwrap() {
                let Some(purl) = package["externalRefs"][0]["referenceLocator"].as_str() else {
                    continue;
                };
                assert!(
                    purl.starts_with("pkg:") && purl.bytes().all(|byte| byte.is_ascii_graphic()),
                    "{purl}"
                );
            }
        }
        let _ = sbom("etc/os-release", bytes);
    });
});
