//! `docker save` archives: `manifest.json` names the configuration and the layers by path.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{ArchiveBlob, ArchiveError, Files, document};
use crate::cache::digest_of;
use crate::error::BuildError;
use crate::image::{BlobRead, Image, OpenLayer};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::source::configuration::Configuration;
use crate::source::manifest::{Descriptor, ManifestError};

const KIND: &str = "`docker save` archive";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Opens an image of an archive.
pub(crate) fn open(
    path: &Path,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<Image<'static>, ArchiveError> {
    let files = Files::open(path)?;
    if !files.is_tar() {
        // File names come from the manifest. In a directory they could leave it.
        let path = path.to_owned();
        return Err(ArchiveError::Missing {
            path,
            missing: "manifest.json".to_owned(),
            kind: KIND,
        });
    }
    let wrong = |source| ArchiveError::Manifest {
        path: path.to_owned(),
        source,
    };
    let bytes = document(&files, "manifest.json", KIND)?;
    let saved: Vec<Saved> = serde_json::from_slice(&bytes).map_err(|source| {
        wrong(ManifestError::Json {
            what: "manifest",
            source,
        })
    })?;
    let saved = choose(saved, tag).map_err(wrong)?;
    let bytes = document(&files, &saved.config, KIND)?;
    let configuration =
        Configuration::parse(&bytes, platform, saved.layers.len()).map_err(wrong)?;
    let mut layers = Vec::new();
    for (name, diff_id) in saved.layers.iter().zip(&configuration.diff_ids) {
        let size = files.part(name, KIND)?.size;
        // The archive has no digest of the stored layer: this is the digest of the uncompressed one.
        layers.push(Descriptor {
            media_type: String::new(),
            digest: diff_id.clone(),
            size,
        });
    }
    let digest = digest_of(&Sha256::new_with_prefix(&bytes));
    Ok(Image {
        digest: Some(digest.clone()),
        config_digest: Some(digest),
        config: configuration.config,
        diff_ids: configuration.diff_ids,
        layers,
        opener: Box::new(Archive {
            files,
            names: saved.layers,
        }),
    })
}

fn choose(mut saved: Vec<Saved>, tag: Option<&str>) -> Result<Saved, ManifestError> {
    let tags = |saved: &[Saved]| {
        let tags = saved
            .iter()
            .flat_map(|image| image.repo_tags.iter().flatten().cloned());
        tags.collect::<Vec<_>>().join(", ")
    };
    let Some(tag) = tag else {
        if saved.len() > 1 {
            return Err(ManifestError::Ambiguous(tags(&saved)));
        }
        let none = || ManifestError::Tag {
            tag: "latest".to_owned(),
            available: "none".to_owned(),
        };
        return saved.pop().ok_or_else(none);
    };
    // `python` matches `python:latest`, and `v1` matches `name:v1`.
    let is = |candidate: &String| {
        candidate == tag
            || candidate.strip_suffix(":latest") == Some(tag)
            || candidate
                .rsplit_once(':')
                .is_some_and(|(_, last)| last == tag)
    };
    let available = tags(&saved);
    let found = saved
        .into_iter()
        .find(|image| image.repo_tags.iter().flatten().any(is));
    found.ok_or_else(|| ManifestError::Tag {
        tag: tag.to_owned(),
        available,
    })
}

struct Archive {
    files: Files,
    names: Vec<String>,
}

impl OpenLayer for Archive {
    fn open<'a>(
        &'a self,
        index: usize,
        _: &Descriptor,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn BlobRead + 'a>, BuildError> {
        let part = self.files.part(&self.names[index], KIND)?;
        let (path, hasher) = (self.files.path.clone(), Sha256::new());
        Ok(Box::new(ArchiveBlob {
            part,
            path,
            hasher,
            digest: None,
        }))
    }
}
