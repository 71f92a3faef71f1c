//! Private items that the fuzz targets use (`fuzz/targets`).

use std::io;
use std::path::Path;

use crate::archive::ListedEntry;
use crate::cpio::Writer;
use crate::image::Image;
use crate::platform::Platform;
use crate::progress::NoProgress;
use crate::registry::fuzzing as registry;
use crate::sbom::Inventory;
use crate::sbom::spdx::{Document, Subject};
use crate::source::archive::{open_docker, open_oci};
use crate::source::configuration::Configuration;
use crate::source::manifest::{Manifest, ManifestError};

pub use registry::{challenge, token};

/// The digests that a manifest names, or that of the manifest that is chosen from an index.
pub fn manifest(bytes: &[u8], tag: Option<&str>) -> Result<Vec<String>, ManifestError> {
    Ok(match Manifest::parse(bytes, &Platform::default(), tag)? {
        Manifest::Index(chosen) => vec![chosen.digest],
        Manifest::Image { config, layers } => {
            let layers = layers.into_iter().map(|layer| layer.digest);
            layers.chain([config.digest]).collect()
        }
    })
}

/// The number of layers of a configuration.
pub fn configuration(bytes: &[u8], layers: usize) -> Result<usize, ManifestError> {
    let parsed = Configuration::parse(bytes, &Platform::default(), layers)?;
    Ok(parsed.diff_ids.len())
}

/// Opens a tar as an image layout and as a `docker save` archive, and reads each layer: at most `bytes`, the length of
/// the tar.
pub fn local_image(path: &Path, bytes: usize) {
    let platform = Platform::default();
    for tag in [None, Some("latest")] {
        for image in [
            open_oci(path, tag, &platform),
            open_docker(path, tag, &platform),
        ] {
            let _ = image.map(|image| read(&image, bytes));
        }
    }
}

fn read(image: &Image<'_>, bytes: usize) {
    for (index, layer) in image.layers.iter().enumerate() {
        let Ok(mut blob) = image.opener.open(index, layer, &NoProgress) else {
            continue;
        };
        let (mut buffer, mut total) = ([0; 4096], 0);
        while let Ok(count @ 1..) = blob.read(&mut buffer) {
            total += count;
            assert!(total <= bytes, "a layer is larger than its archive");
        }
    }
}

/// An archive of these entries, with the targets of symlinks and no other data.
pub fn write_cpio(entries: &[ListedEntry]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.header(&entry.header, &entry.path)?;
        writer.data(entry.target.as_deref().unwrap_or_default())?;
        writer.pad()?;
    }
    Ok(writer.finish()?.0)
}

/// The SPDX document of an image whose one database, at `path`, has this content.
pub fn sbom(path: &str, content: &[u8]) -> Option<Document> {
    let files = [(path.as_bytes().to_vec(), content.to_vec())];
    let subject = Subject {
        name: "image",
        source: "oci:image",
        archive_digest: "sha256:00",
        digest: None,
        built_at: 0,
    };
    Inventory::of_files(&files).map(|inventory| Document::new(&subject, &inventory))
}
