//! The store of built images: `NAME.cpio` with its metadata in `NAME.json`.

mod metadata;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

pub use metadata::{LayerRecord, METADATA_VERSION, Metadata};

use crate::cache::{CacheError, Lock, lock};
use crate::progress::Cancel;

/// The store of images failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("`{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A name that is not allowed as a file name.
    #[error(
        "invalid image name `{0}`: use up to 128 letters, digits, `.`, `_` and `-`, not starting with `.`"
    )]
    Name(String),
    /// No image of that name.
    #[error("there is no image `{name}` in `{dir}`; `cloude-initramfs ls` lists the images")]
    Missing {
        /// The name.
        name: String,
        /// The store.
        dir: PathBuf,
    },
    /// The lock of an image failed.
    #[error(transparent)]
    Lock(#[from] CacheError),
}

/// A directory of images, for any number of processes.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// A stored image.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Its name.
    pub name: String,
    /// The initramfs.
    pub path: PathBuf,
    /// Its metadata.
    pub metadata: Metadata,
}

impl Store {
    /// The store in a directory, which need not exist.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Store { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An image, if it exists and matches its metadata.
    pub fn get(&self, name: &str) -> Option<StoredImage> {
        check_name(name).ok()?;
        let path = self.dir.join(format!("{name}.cpio"));
        let text = fs::read(self.dir.join(format!("{name}.json"))).ok()?;
        let metadata: Metadata = serde_json::from_slice(&text).ok()?;
        // The two files are not replaced atomically: for a moment they do not match.
        let bytes = fs::metadata(&path).ok()?.len();
        let whole = bytes == metadata.summary.archive_bytes && metadata.version == METADATA_VERSION;
        whole.then(|| StoredImage {
            name: name.to_owned(),
            path,
            metadata,
        })
    }

    /// All images, sorted by name.
    pub fn list(&self) -> Result<Vec<StoredImage>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.dir)(error)),
        };
        let mut images = Vec::new();
        for entry in entries {
            let path = entry.map_err(at(&self.dir))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                images.extend(self.get(name));
            }
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Deletes an image. Returns the number of bytes freed.
    pub fn remove(&self, name: &str) -> Result<u64, StoreError> {
        check_name(name)?;
        let missing = || StoreError::Missing {
            name: name.to_owned(),
            dir: self.dir.clone(),
        };
        if !self.dir.exists() {
            return Err(missing());
        }
        let held = lock(&self.lock_path(name), &Cancel::new())?;
        let mut freed = None;
        for extension in ["json", "cpio"] {
            let path = self.dir.join(format!("{name}.{extension}"));
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            fs::remove_file(&path).map_err(at(&path))?;
            freed = Some(freed.unwrap_or(0) + metadata.len());
        }
        held.remove(false);
        freed.ok_or_else(missing)
    }

    /// Starts to replace an image. Waits while another process does.
    pub(crate) fn begin(&self, name: &str, cancel: &Cancel) -> Result<Pending, StoreError> {
        check_name(name)?;
        fs::create_dir_all(&self.dir).map_err(at(&self.dir))?;
        let lock = lock(&self.lock_path(name), cancel)?;
        Ok(Pending {
            store: self.clone(),
            name: name.to_owned(),
            _lock: lock,
        })
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}.lock"))
    }
}

/// An image that is being built. Dropping it before [`Pending::commit`] keeps the old image.
#[derive(Debug)]
pub(crate) struct Pending {
    store: Store,
    name: String,
    _lock: Lock,
}

impl Pending {
    /// A temporary file for the initramfs.
    pub fn file(&self) -> Result<NamedTempFile, StoreError> {
        temp_file(&self.store.dir)
    }

    /// Replaces the image by the new one.
    pub fn commit(
        self,
        file: NamedTempFile,
        metadata: Metadata,
    ) -> Result<StoredImage, StoreError> {
        let path = self.store.dir.join(format!("{}.cpio", self.name));
        let json = self.record(&metadata)?;
        persist(file, &path)?;
        persist(json, &self.record_path())?;
        Ok(StoredImage {
            name: self.name,
            path,
            metadata,
        })
    }

    /// Records that the stored image is what its source gives now.
    pub fn confirm(self, image: &StoredImage) -> Result<StoredImage, StoreError> {
        let mut image = image.clone();
        image.metadata.checked_at = now();
        persist(self.record(&image.metadata)?, &self.record_path())?;
        Ok(image)
    }

    fn record_path(&self) -> PathBuf {
        self.store.dir.join(format!("{}.json", self.name))
    }

    fn record(&self, metadata: &Metadata) -> Result<NamedTempFile, StoreError> {
        let json = temp_file(&self.store.dir)?;
        serde_json::to_writer_pretty(json.as_file(), metadata)
            .map_err(|error| at(&self.record_path())(error.into()))?;
        Ok(json)
    }
}

/// A temporary file in the directory of the file that it will replace, with mode 0644.
pub(crate) fn temp_file(dir: &Path) -> Result<NamedTempFile, StoreError> {
    tempfile::Builder::new()
        .prefix(".building-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(at(dir))
}

/// Renames a temporary file to its final path.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> Result<File, StoreError> {
    file.persist(path).map_err(|error| at(path)(error.error))
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(StoreError::Name(name.to_owned()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn build(store: &Store, name: &str, bytes: &[u8]) -> StoredImage {
        let pending = store.begin(name, &Cancel::new()).unwrap();
        let mut file = pending.file().unwrap();
        file.write_all(bytes).unwrap();
        let mut metadata = Metadata::for_test(name);
        metadata.summary.archive_bytes = bytes.len() as u64;
        pending.commit(file, metadata).unwrap()
    }

    #[test]
    fn a_committed_image_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images"));
        assert!(store.list().unwrap().is_empty());
        build(&store, "b", b"2");
        build(&store, "a", b"1");
        let names: Vec<String> = store
            .list()
            .unwrap()
            .into_iter()
            .map(|image| image.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(fs::read(store.get("a").unwrap().path).unwrap(), b"1");
    }

    #[test]
    fn a_confirmed_image_keeps_its_bytes_and_gets_a_new_check() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let image = build(&store, "a", b"same");
        assert_eq!(image.metadata.checked_at, 0);
        let pending = store.begin("a", &Cancel::new()).unwrap();
        pending.confirm(&image).unwrap();
        let stored = store.get("a").unwrap();
        assert!(stored.metadata.checked_at > 0);
        assert_eq!(fs::read(stored.path).unwrap(), b"same");
    }

    #[test]
    fn an_abandoned_build_leaves_the_old_image_and_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        build(&store, "a", b"old");
        let pending = store.begin("a", &Cancel::new()).unwrap();
        let mut file = pending.file().unwrap();
        file.write_all(b"half").unwrap();
        drop((pending, file));
        assert_eq!(fs::read(store.get("a").unwrap().path).unwrap(), b"old");
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".building"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn an_image_that_differs_from_its_metadata_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let image = build(&store, "a", b"whole");
        fs::write(image.path, b"torn").unwrap();
        assert!(store.get("a").is_none());
    }

    #[test]
    fn removing_frees_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        build(&store, "a", b"whole");
        assert!(store.remove("a").unwrap() > 5);
        assert!(matches!(store.remove("a"), Err(StoreError::Missing { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        let store = Store::open("/nonexistent");
        for name in ["../a", "", ".hidden", "a/b", "a b"] {
            assert!(
                matches!(store.remove(name), Err(StoreError::Name(_))),
                "{name}"
            );
            assert!(store.get(name).is_none());
        }
    }
}
