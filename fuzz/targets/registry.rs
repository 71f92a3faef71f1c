//! Answers of a registry: the challenge of `WWW-Authenticate` on the first line, the body of the token's answer after
//! it. Manifests are in `manifest`, layers in `layer`.
#![no_main]

use cloude_fuzz::bounded;
use cloude_initramfs_builder::fuzzing::{challenge, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    bounded(4 << 20, || {
        let (header, body) = text.split_once('\n').unwrap_or((text, ""));
        if let Some(realm) = challenge(header) {
            assert!(header.contains(&realm));
        }
        if let Ok(Some(token)) = token(body.as_bytes()) {
            assert!(token.len() <= body.len());
        }
    });
});
