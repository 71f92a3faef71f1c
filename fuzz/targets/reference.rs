//! References and sources of images, as users and language files write them.
#![no_main]

use cloude_initramfs_builder::source::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    // Both become parts of URLs and of paths of the cache.
    let parts = format!("{}/{}", reference.repository, reference.manifest_name());
    assert!(
        !parts.contains("..")
            || parts
                .split('/')
                .all(|part| part != ".." && !part.is_empty())
    );
    assert!(
        parts
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte))
    );
    let shown = reference.to_string();
    assert_eq!(
        shown.parse::<Reference>().as_ref(),
        Ok(&reference),
        "{shown}"
    );
});
