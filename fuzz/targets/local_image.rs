//! Tars of OCI image layouts and of `docker save`: the index of their files, manifests, configurations, and the start
//! of each layer.
#![no_main]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::LazyLock;

use cloude_fuzz::bounded;
use cloude_initramfs_builder::fuzzing::local_image;
use libfuzzer_sys::fuzz_target;
use rustix::fs::MemfdFlags;

/// One file in memory, whose content is replaced by each input.
static FILE: LazyLock<OwnedFd> =
    LazyLock::new(|| rustix::fs::memfd_create("image.tar", MemfdFlags::CLOEXEC).unwrap());

fuzz_target!(|bytes: &[u8]| {
    rustix::fs::ftruncate(&*FILE, 0).unwrap();
    rustix::io::pwrite(&*FILE, bytes, 0).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", FILE.as_raw_fd()));
    bounded(16 << 20, || local_image(&path, bytes.len()));
});
