//! OCI image layouts (image-spec 1.1, image-layout.md).

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{ArchiveBlob, ArchiveError, Files, check_digest, document};
use crate::error::BuildError;
use crate::image::{BlobRead, Image, OpenLayer};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::source::configuration::Configuration;
use crate::source::manifest::{Descriptor, Manifest};

const KIND: &str = "OCI image layout";
/// Nested indexes that are followed.
const MAX_INDEXES: usize = 4;

/// Opens an image of a layout.
pub(crate) fn open(
    path: &Path,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<Image<'static>, ArchiveError> {
    let files = Files::open(path)?;
    let wrong = |source| ArchiveError::Manifest {
        path: path.to_owned(),
        source,
    };
    let mut bytes = document(&files, "index.json", KIND)?;
    let mut digest = None;
    for depth in 0..=MAX_INDEXES {
        // The tag is in the outermost index; inner ones have platforms.
        let tag = tag.filter(|_| depth == 0);
        match Manifest::parse(&bytes, platform, tag).map_err(wrong)? {
            Manifest::Image { config, layers } => {
                let bytes = blob(&files, &config)?;
                let parsed = Configuration::parse(&bytes, platform, layers.len()).map_err(wrong)?;
                return Ok(Image {
                    digest,
                    config_digest: Some(config.digest),
                    config: parsed.config,
                    diff_ids: parsed.diff_ids,
                    layers,
                    opener: Box::new(Layout { files }),
                });
            }
            Manifest::Index(manifest) => {
                bytes = blob(&files, &manifest)?;
                digest = Some(manifest.digest);
            }
        }
    }
    Err(ArchiveError::Missing {
        path: path.to_owned(),
        missing: "manifest".to_owned(),
        kind: KIND,
    })
}

fn name_of(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// Reads a document by its digest, which has been checked for its form.
fn blob(files: &Files, descriptor: &Descriptor) -> Result<Vec<u8>, ArchiveError> {
    let bytes = document(files, &name_of(&descriptor.digest), KIND)?;
    check_digest(files, &bytes, &descriptor.digest)?;
    Ok(bytes)
}

struct Layout {
    files: Files,
}

impl OpenLayer for Layout {
    fn open<'a>(
        &'a self,
        _: usize,
        layer: &Descriptor,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn BlobRead + 'a>, BuildError> {
        let part = self.files.part(&name_of(&layer.digest), KIND)?;
        Ok(Box::new(ArchiveBlob {
            part,
            path: self.files.path.clone(),
            hasher: Sha256::new(),
            digest: Some(layer.digest.clone()),
        }))
    }
}
