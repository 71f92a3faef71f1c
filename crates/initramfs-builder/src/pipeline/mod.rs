//! Builds an initramfs from a source: resolve, read layers in parallel, merge in order, write.

mod layers;
mod prune;
mod request;
mod version;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

pub use crate::error::BuildError;
pub use crate::platform::{Platform, PlatformError};
pub use crate::progress::{Cancel, Event, NoProgress, Progress};
pub use prune::prune;
pub use request::{BuildRequest, Destination};
pub use version::{Program, VersionMismatch};

use crate::archive::{ImageOptions, write_image};
use crate::cache::BlobCache;
use crate::debian::{self, Mmdebstrap};
use crate::layer::{Compression, Context, Layer};
use crate::registry::RegistryImages;
use crate::source::manifest::Descriptor;
use crate::source::{Packages, Source, archive};
use crate::store::{self, LayerRecord, METADATA_VERSION, Metadata, Pending, Store, StoreError};
use crate::tree::Tree;

/// An image that was built, or was up to date.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// The initramfs.
    pub path: PathBuf,
    /// Its metadata.
    pub metadata: Metadata,
    /// The stored image was up to date; nothing was built.
    pub up_to_date: bool,
}

/// Builds an image, unless the stored one is up to date. Blocks: do not call it on a thread of an asynchronous runtime.
pub fn build(request: &BuildRequest, progress: &dyn Progress) -> Result<BuiltImage, BuildError> {
    request.platform.check_host()?;
    match &request.destination {
        Destination::Store { dir, name } => {
            let store = Store::open(dir);
            let pending = store.begin(name, &request.cancel)?;
            let stored = store.get(name).filter(|_| !request.force);
            let stored = stored.filter(|image| request.matches(&image.metadata));
            let known = stored.as_ref().map(|image| &image.metadata);
            if let (Some(image), false) = (&stored, request.pull) {
                return Ok(BuiltImage {
                    path: image.path.clone(),
                    metadata: image.metadata.clone(),
                    up_to_date: true,
                });
            }
            Builder { request, progress }.build_to_store(pending, known, stored.as_ref())
        }
        Destination::File(path) => Builder { request, progress }.build_to_file(path),
    }
}

struct Builder<'a> {
    request: &'a BuildRequest,
    progress: &'a dyn Progress,
}

/// The merged layers.
struct Merged {
    tree: Tree,
    metadata: Metadata,
}

impl Builder<'_> {
    fn build_to_store(
        &self,
        pending: Pending,
        known: Option<&Metadata>,
        stored: Option<&store::StoredImage>,
    ) -> Result<BuiltImage, BuildError> {
        let Some(merged) = self.merge(known)? else {
            if let Some(image) = stored {
                let image = pending.confirm(image)?;
                return Ok(BuiltImage {
                    path: image.path,
                    metadata: image.metadata,
                    up_to_date: true,
                });
            }
            return Err(BuildError::Cancelled);
        };
        let file = pending.file()?;
        let metadata = self.write(merged, &file)?;
        let image = pending.commit(file, metadata)?;
        Ok(BuiltImage {
            path: image.path,
            metadata: image.metadata,
            up_to_date: false,
        })
    }

    fn build_to_file(&self, path: &Path) -> Result<BuiltImage, BuildError> {
        let Some(merged) = self.merge(None)? else {
            return Err(BuildError::Cancelled);
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let file = store::temp_file(dir.unwrap_or(Path::new(".")))?;
        let metadata = self.write(merged, &file)?;
        if let Some(append) = &self.request.append {
            let at = |source| StoreError::Io {
                path: path.to_owned(),
                source,
            };
            file.as_file().write_all(append).map_err(at)?;
        }
        store::persist(file, path)?;
        Ok(BuiltImage {
            path: path.to_owned(),
            metadata,
            up_to_date: false,
        })
    }

    /// Reads and merges the source, or the fallback if the registry is unreachable. None if the source has not changed
    /// since `known`.
    fn merge(&self, known: Option<&Metadata>) -> Result<Option<Merged>, BuildError> {
        let request = self.request;
        let temp = request.cache_dir.join("tmp");
        fs::create_dir_all(&temp).map_err(|source| StoreError::Io {
            path: temp.clone(),
            source,
        })?;
        match self.merge_source(&request.source, &temp, known) {
            Err(error) if error.registry_unreachable() => {
                let Some(fallback) = &request.fallback else {
                    return Err(error);
                };
                let message = format!(
                    "{error}; building {fallback} instead of {}: --source image rules that out, --pull asks the \
                     registry again",
                    request.source
                );
                self.progress.event(&Event::Notice { message });
                let mut merged = self.merge_source(fallback, &temp, known)?;
                if let Some(merged) = &mut merged {
                    merged.metadata.instead_of = Some(request.source.to_string());
                }
                Ok(merged)
            }
            result => result,
        }
    }

    fn merge_source(
        &self,
        source: &Source,
        temp: &Path,
        known: Option<&Metadata>,
    ) -> Result<Option<Merged>, BuildError> {
        let request = self.request;
        let context = Context::new(request.limits.clone(), temp);
        let images;
        let image = match source {
            Source::Debian(packages) => {
                return self.debian(source, packages, &context, known);
            }
            Source::Registry(reference) => {
                let cache = BlobCache::open(&request.cache_dir)?;
                images = RegistryImages::new(&request.registry, cache, request.cancel.clone())?;
                self.progress.event(&Event::Step {
                    message: format!("resolving {reference}"),
                });
                images.resolve(reference, &request.platform, self.progress)?
            }
            Source::Oci { path, tag } => {
                archive::open_oci(path, tag.as_deref(), &request.platform)?
            }
            Source::DockerArchive { path, tag } => {
                archive::open_docker(path, tag.as_deref(), &request.platform)?
            }
        };
        let unchanged = known.is_some_and(|known| {
            known.digest == image.digest && known.source == source.to_string()
        });
        if unchanged {
            return Ok(None);
        }
        let tree = layers::merge(&image, &context, &request.cancel, self.progress)?;
        let mut metadata = self.metadata(source);
        metadata.digest = image.digest;
        metadata.config_digest = image.config_digest;
        metadata.layers = image.layers.iter().map(layer_record).collect();
        metadata.program_version = match &request.program {
            Some(program) => program.of_layers(&image.config, &tree),
            None => version::of_config(&image.config),
        };
        metadata.config = image.config;
        self.checked(Merged { tree, metadata }).map(Some)
    }

    fn debian(
        &self,
        source: &Source,
        packages: &Packages,
        context: &Context,
        known: Option<&Metadata>,
    ) -> Result<Option<Merged>, BuildError> {
        let request = self.request;
        let debs = request.cache_dir.join("debs");
        let process = Mmdebstrap::start(packages, &request.debian, &debs, context.spool_dir())?;
        let result = process.run(&request.cancel, self.progress, |stdout| {
            Layer::read(stdout, Compression::Plain, context)
                .map_err(|source| BuildError::Packages { source })
        });
        request.cancel.check()?;
        let (layer, installed) = result?;
        // The same packages give the same bytes.
        let unchanged = known.is_some_and(|known| {
            known.packages == installed
                && known.source == source.to_string()
                && known.config == debian::image_config(packages)
        });
        if unchanged {
            return Ok(None);
        }
        let mut tree = Tree::new(context);
        tree.apply(layer)?;
        let mut metadata = self.metadata(source);
        metadata.config = debian::image_config(packages);
        metadata.program_version = match (&request.program, packages.packages.first()) {
            (Some(program), _) => program.of_packages(&installed),
            (None, Some(first)) => version::of_packages(first, &installed),
            (None, None) => None,
        };
        metadata.packages = installed;
        self.checked(Merged { tree, metadata }).map(Some)
    }

    /// Refuses another version than the wanted one, before anything is written.
    fn checked(&self, merged: Merged) -> Result<Merged, BuildError> {
        if let Some(program) = &self.request.program {
            program.check(&merged.metadata)?;
        }
        Ok(merged)
    }

    fn metadata(&self, source: &Source) -> Metadata {
        Metadata {
            version: METADATA_VERSION,
            builder: request::BUILDER.clone(),
            source: source.to_string(),
            instead_of: None,
            program_version: None,
            platform: self.request.platform.to_string(),
            digest: None,
            config_digest: None,
            layers: Vec::new(),
            packages: Vec::new(),
            built_at: store::now(),
            checked_at: store::now(),
            archive_digest: String::new(),
            output: self.request.output,
            source_date_epoch: self.request.source_date_epoch,
            config: Default::default(),
            required_memory: 0,
            summary: Default::default(),
        }
    }

    fn write(&self, merged: Merged, file: &NamedTempFile) -> Result<Metadata, BuildError> {
        let Merged { tree, mut metadata } = merged;
        self.progress.event(&Event::Step {
            message: "writing the initramfs".to_owned(),
        });
        let request = self.request;
        let options = ImageOptions {
            output: request.output,
            source_date_epoch: request.source_date_epoch,
        };
        let mut out = Observed {
            out: file.as_file(),
            cancel: &request.cancel,
            digest: Sha256::new(),
        };
        let written = write_image(tree, &metadata.config, &options, &mut out);
        request.cancel.check()?;
        metadata.summary = written?;
        metadata.archive_digest = format!("sha256:{}", const_hex::encode(out.digest.finalize()));
        metadata.required_memory = metadata.summary.required_memory();
        if let Some(memory) = request.memory {
            metadata.summary.check_memory(memory)?;
        }
        Ok(metadata)
    }
}

fn layer_record(layer: &Descriptor) -> LayerRecord {
    LayerRecord {
        digest: layer.digest.clone(),
        size: layer.size,
    }
}

/// Digests the archive while it is written, and ends a long write when cancelled.
struct Observed<'a, W> {
    out: W,
    cancel: &'a Cancel,
    digest: Sha256,
}

impl<W: Write> Write for Observed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_set() {
            return Err(io::Error::other("cancelled"));
        }
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
