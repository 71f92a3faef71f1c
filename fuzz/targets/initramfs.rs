//! The reader of initramfs files: newc, plain or compressed. What it reads and the writer writes is read again.
#![no_main]

use cloude_fuzz::bounded;
use cloude_initramfs_builder::archive::{ListedEntry, list};
use cloude_initramfs_builder::fuzzing::write_cpio;
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8]) -> (Vec<ListedEntry>, bool) {
    let mut entries = Vec::new();
    let Ok(listed) = list(bytes) else {
        return (entries, false);
    };
    for entry in listed.take(1000) {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(_) => return (entries, false),
        }
    }
    (entries, true)
}

fuzz_target!(|bytes: &[u8]| {
    // A zstd window is bounded, and counted only by zstd.
    bounded(16 << 20, || {
        let (mut entries, whole) = read(bytes);
        if !whole {
            return;
        }
        // Only targets of symlinks are read, so data of other entries is not there to be written.
        for entry in &mut entries {
            entry.header.size = entry
                .target
                .as_ref()
                .map_or(0, |target| target.len() as u32);
        }
        let entries: Vec<_> = entries
            .into_iter()
            .filter(|entry| !entry.path.contains(&0))
            .collect();
        let archive = write_cpio(&entries).expect("writing to memory does not fail");
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(read(&archive), (entries, true));
    });
});
