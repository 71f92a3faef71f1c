//! `cloude-initramfs sbom`.

use std::fs::File;
use std::path::Path;

use cloude_initramfs_builder::sbom::Inventory;
use cloude_initramfs_builder::sbom::spdx::{Document, Subject};
use cloude_initramfs_builder::store::StoreError;

use super::args::{SbomArgs, SbomFormat};
use super::failure::Failure;
use super::output::print_json;
use super::paths::Paths;

pub fn run(args: &SbomArgs, paths: &Paths) -> Result<(), Failure> {
    let store = paths.store();
    let Some(image) = store.get(&args.image) else {
        let (name, dir) = (args.image.clone(), store.dir().to_owned());
        return Err(StoreError::Missing { name, dir }.into());
    };
    let inventory = read(&image.path)?;
    let subject = Subject {
        name: &image.name,
        source: &image.metadata.source,
        archive_digest: &image.metadata.archive_digest,
        digest: image.metadata.digest.as_deref(),
        built_at: image.metadata.built_at,
    };
    match args.format {
        SbomFormat::SpdxJson => print_json(&Document::new(&subject, &inventory)),
    }
}

fn read(path: &Path) -> Result<Inventory, Failure> {
    let shown =
        |error: &dyn std::fmt::Display| Failure::new(format!("`{}`: {error}", path.display()));
    let file = File::open(path).map_err(|error| shown(&error))?;
    Inventory::read(file).map_err(|error| shown(&error))
}
