//! What must hold of every image that was made from layers, whatever they are.

use std::collections::HashMap;

use cloude_initramfs_builder::archive::{ImageOptions, ListedEntry, list, write_image};
use cloude_initramfs_builder::layer::{Compression, Context};
use cloude_initramfs_builder::limits::Limits;
use cloude_initramfs_builder::tree::Tree;

/// Limits under which a hostile image needs little memory and time.
pub fn limits() -> Limits {
    Limits {
        max_layers: 4,
        max_entries: 200,
        max_compressed_bytes: 1 << 20,
        max_unpacked_bytes: 1 << 20,
        max_file_bytes: 1 << 19,
        max_header_bytes: 1 << 14,
        max_metadata_bytes: 1 << 16,
        max_sparse_segments: 64,
        max_lookups: 20_000,
        ..Limits::default()
    }
}

/// Merges layers, writes the image, lists it, and checks the list. Layers that are refused end it early.
pub fn build<'a>(layers: impl Iterator<Item = &'a [u8]>) {
    let context = Context::new(limits(), std::env::temp_dir());
    let mut tree = Tree::new(&context);
    for layer in layers {
        if tree
            .apply_layer(layer, Compression::Detect, &context)
            .is_err()
        {
            return;
        }
    }
    let mut archive = Vec::new();
    let config = cloude_protocol::boot::ImageConfig::default();
    let summary = write_image(tree, &config, &ImageOptions::default(), &mut archive)
        .expect("a merged tree can be written");
    assert_eq!(summary.archive_bytes, archive.len() as u64);
    let entries: Vec<_> = list(&archive[..])
        .expect("the archive can be listed")
        .collect::<Result<_, _>>()
        .expect("every entry can be read");
    assert_eq!(summary.entries, entries.len() as u64);
    check(&entries);
}

/// Every path is inside, once there, and comes after its parent, which is a directory.
fn check(entries: &[ListedEntry]) {
    const TYPE: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    for entry in entries {
        let path = entry.path.as_slice();
        let shown = path.escape_ascii();
        let kind = entry.header.mode & TYPE;
        assert!(path.len() < 4096 && !path.contains(&0), "{shown}");
        if path != b"." {
            let parts = || path.split(|byte| *byte == b'/');
            assert!(
                parts().all(|part| !matches!(part, b"" | b"." | b"..")),
                "{shown}"
            );
            assert!(parts().all(|part| part.len() <= 255), "{shown}");
            if let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
                let parent = seen.get(&path[..slash]);
                assert_eq!(parent, Some(&DIRECTORY), "the parent of {shown}");
            }
            let own = path == b".cloude" || path == b".cloude/image.json";
            assert!(own || !path.starts_with(b".cloude/"), "{shown}");
        }
        assert!(seen.insert(path, kind).is_none(), "{shown} is there twice");
    }
}
