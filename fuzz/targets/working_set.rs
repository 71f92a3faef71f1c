//! The list of pages that forks prefault, as it is stored beside a template.
#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use cloude_fuzz::bounded;
use cloude_vmm::snapshot::WorkingSet;
use libfuzzer_sys::fuzz_target;
use rustix::fs::MemfdFlags;

fn file(bytes: &[u8]) -> File {
    let fd: OwnedFd = rustix::fs::memfd_create("list", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&fd, bytes, 0).unwrap();
    fd.into()
}

fuzz_target!(|bytes: &[u8]| {
    bounded(16 << 20, || {
        let Ok(set) = WorkingSet::open(&file(bytes)) else {
            return;
        };
        // A page is prefaulted once at most, so a list costs no more than the memory has pages.
        let pages = 1 << 32;
        assert!(set.written_pages() <= pages && set.read_pages() <= pages);
        let encoded = set.encode().unwrap();
        assert_eq!(WorkingSet::open(&file(&encoded)).unwrap(), set);
    });
});
