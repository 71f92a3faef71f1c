//! Where things lie (docs/architecture.md).

use std::env;
use std::path::PathBuf;

use cloude_initramfs_builder::store::Store;

pub struct Paths {
    pub cache: PathBuf,
    pub images: PathBuf,
}

impl Paths {
    pub fn new(cache: Option<PathBuf>, images: Option<PathBuf>) -> Self {
        let cache = cache.unwrap_or_else(default_cache);
        let images = images.unwrap_or_else(|| cache.join("images"));
        Paths { cache, images }
    }

    pub fn store(&self) -> Store {
        Store::open(&self.images)
    }
}

fn default_cache() -> PathBuf {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/var/cache"))
        .join("cloude")
}
