//! The software bill of materials of a built image: the packages that its databases list, as an SPDX document.
//!
//! [`Inventory::read`] reads the databases out of the initramfs, without unpacking it. [`spdx::Document::new`] makes
//! the document.

mod database;
pub mod spdx;

use std::io::{self, Read};

pub use database::{Kind, Package, System};
use database::{apk, dpkg, os_release};

use crate::archive::read_files;

/// The most bytes that are read of one database. Debian's whole archive has a list of some 60 MiB; an image has a few
/// hundred packages of some 800 bytes.
const MAX_DATABASE_BYTES: u32 = 64 << 20;

/// Where Debian and Ubuntu list the installed packages (dpkg(1)), and where distroless images do, a file for each.
const DPKG_STATUS: &[u8] = b"var/lib/dpkg/status";
const DPKG_STATUS_DIR: &[u8] = b"var/lib/dpkg/status.d/";
/// Where Alpine lists them, before and after its merge of `/lib` into `/usr`.
const APK_INSTALLED: [&[u8]; 2] = [b"lib/apk/db/installed", b"usr/lib/apk/db/installed"];
/// os-release(5). The first is usually a link to the second.
const OS_RELEASE: [&[u8]; 2] = [b"etc/os-release", b"usr/lib/os-release"];

/// No inventory could be made of an image.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The initramfs cannot be read, or is damaged. Build the image again.
    #[error("cannot read the initramfs: {0}")]
    Read(#[from] io::Error),
    /// No database of a known kind. An image `FROM scratch` has none.
    #[error(
        "the image has no package database: neither /var/lib/dpkg/status (Debian, Ubuntu) nor /lib/apk/db/installed (Alpine)"
    )]
    NoDatabase,
}

/// The packages that are installed in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The distribution; none if the image does not say.
    pub system: Option<System>,
    /// The packages, sorted by name and architecture.
    pub packages: Vec<Package>,
}

impl Inventory {
    /// Reads the databases of an initramfs: plain, or compressed in one of the forms that
    /// [`crate::archive::list`] takes.
    pub fn read(initramfs: impl Read) -> Result<Self, InventoryError> {
        let files = read_files(initramfs, MAX_DATABASE_BYTES, |path| {
            path == DPKG_STATUS
                || path.starts_with(DPKG_STATUS_DIR)
                || APK_INSTALLED.contains(&path)
                || OS_RELEASE.contains(&path)
        })?;
        Self::of_files(&files).ok_or(InventoryError::NoDatabase)
    }

    /// The inventory of the databases among `files`, by path and content; none if there is no database.
    pub(crate) fn of_files(files: &[(Vec<u8>, Vec<u8>)]) -> Option<Self> {
        let mut inventory = Inventory::default();
        let mut found = false;
        for (path, content) in files {
            let text = String::from_utf8_lossy(content);
            if OS_RELEASE.contains(&path.as_slice()) {
                inventory.system = inventory.system.or_else(|| os_release(&text));
            } else if APK_INSTALLED.contains(&path.as_slice()) {
                found = true;
                inventory.packages.extend(apk(&text));
            } else if !path.ends_with(b".md5sums") {
                found = true;
                inventory.packages.extend(dpkg(&text));
            }
        }
        inventory.packages.sort();
        inventory.packages.dedup();
        found.then_some(inventory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(files: &[(&str, &str)]) -> Option<Inventory> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, content)| (path.as_bytes().to_vec(), content.as_bytes().to_vec()))
            .collect();
        Inventory::of_files(&files)
    }

    #[test]
    fn an_image_without_a_database_has_no_inventory() {
        assert_eq!(inventory(&[]), None);
        assert_eq!(inventory(&[("etc/os-release", "ID=debian\n")]), None);
    }

    #[test]
    fn distroless_images_have_a_file_for_each_package() {
        let found = inventory(&[
            ("var/lib/dpkg/status.d/b", "Package: b\nVersion: 2\n"),
            ("var/lib/dpkg/status.d/a", "Package: a\nVersion: 1\n"),
            (
                "var/lib/dpkg/status.d/a.md5sums",
                "Package: no\nVersion: 0\n",
            ),
        ])
        .unwrap();
        let names: Vec<_> = found.packages.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
