//! Deletes files of the cache that no image needs.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::cache::{BlobCache, CacheError, Pruned, at};
use crate::error::BuildError;

/// Temporary directories of dead processes are deleted after this time: a build takes minutes.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Deletes blobs, partial transfers and Debian packages for which `needed` is false, and abandoned temporary
/// directories. Returns them. `needed` is called with digests (`sha256:…`) and packages
/// (`name_version_architecture`), the items of [`crate::store::Metadata::needs`].
pub fn prune(
    cache_dir: &Path,
    dry_run: bool,
    needed: impl Fn(&str) -> bool,
) -> Result<Vec<Pruned>, BuildError> {
    let mut pruned = Vec::new();
    if cache_dir.join("blobs").exists() {
        pruned = BlobCache::open(cache_dir)?.prune(dry_run, &needed)?;
    }
    for path in entries(&cache_dir.join("debs"))? {
        let package = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .replace("%3a", ":");
        if !needed(&package) {
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if !dry_run {
                fs::remove_file(&path).map_err(at(&path))?;
            }
            pruned.push(Pruned { path, bytes });
        }
    }
    for path in entries(&cache_dir.join("tmp"))? {
        if is_abandoned(&path) {
            if !dry_run && path.is_dir() {
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
            pruned.push(Pruned { path, bytes: 0 });
        }
    }
    Ok(pruned)
}

fn is_abandoned(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok());
    path.is_dir() && age.is_some_and(|age| age > ABANDONED)
}

fn entries(dir: &Path) -> Result<Vec<std::path::PathBuf>, CacheError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(dir)(error)),
    };
    let paths: Result<Vec<_>, _> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut paths = paths.map_err(at(dir))?;
    paths.sort();
    Ok(paths)
}
