//! Layers as they come from a registry: tar, gzip or zstd, up to three of them.
#![no_main]

use cloude_fuzz::{Input, bounded, image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The decompressor's chunks and windows, and the archive.
    bounded(64 << 20, || {
        let mut input = Input::new(bytes);
        let first = [input.chunk(), input.chunk()];
        let layers = first
            .into_iter()
            .filter(|layer| !layer.is_empty())
            .chain([input.rest()]);
        image::build(layers);
    });
});
