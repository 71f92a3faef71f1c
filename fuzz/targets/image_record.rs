//! `NAME.json` of a stored image.
#![no_main]

use cloude_fuzz::bounded;
use cloude_initramfs_builder::store::Metadata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bounded(8 << 20, || {
        let Ok(record) = serde_json::from_slice::<Metadata>(bytes) else {
            return;
        };
        assert!(record.needs().count() >= record.layers.len());
        let written = serde_json::to_vec(&record).unwrap();
        assert_eq!(
            serde_json::from_slice::<Metadata>(&written).unwrap(),
            record
        );
    });
});
