//! Manifests, indexes and configurations of images, as a registry or a disk has them.
#![no_main]

use cloude_fuzz::bounded;
use cloude_initramfs_builder::fuzzing::{configuration, manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bounded(4 << 20, || {
        for tag in [None, Some("latest")] {
            let Ok(descriptors) = manifest(bytes, tag) else {
                continue;
            };
            // Digests become file names of the cache.
            for digest in &descriptors {
                let hex = digest
                    .strip_prefix("sha256:")
                    .expect("an algorithm that is verified");
                assert!(
                    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{digest}"
                );
            }
        }
        for layers in 0..3 {
            if let Ok(count) = configuration(bytes, layers) {
                assert_eq!(count, layers);
            }
        }
    });
});
