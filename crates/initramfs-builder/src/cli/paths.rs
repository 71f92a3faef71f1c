//! Paths of cache and images (docs/architecture.md).

use std::path::PathBuf;

use cloude_initramfs_builder::store::Store;
use cloude_protocol::paths::cache_dir;

pub struct Paths {
    pub cache: PathBuf,
    pub images: PathBuf,
}

impl Paths {
    pub fn new(cache: Option<PathBuf>, images: Option<PathBuf>) -> Self {
        let cache = cache.unwrap_or_else(cache_dir);
        let images = images.unwrap_or_else(|| cache.join("images"));
        Paths { cache, images }
    }

    pub fn store(&self) -> Store {
        Store::open(&self.images)
    }
}
