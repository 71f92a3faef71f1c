//! `cloude-initramfs ls`, `rm` and `prune`.

use std::collections::HashSet;
use std::path::PathBuf;

use cloude_initramfs_builder::pipeline::prune as prune_cache;
use cloude_initramfs_builder::store::{Metadata, StoredImage};
use serde::Serialize;

use super::args::{LsArgs, PruneArgs, RmArgs};
use super::failure::Failure;
use super::output::print_json;
use super::paths::Paths;
use super::text;

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    path: &'a PathBuf,
    #[serde(flatten)]
    metadata: &'a Metadata,
}

pub fn ls(args: &LsArgs, paths: &Paths) -> Result<(), Failure> {
    let images = paths.store().list()?;
    if args.json {
        let listed: Vec<Listed<'_>> = images.iter().map(listed).collect();
        return print_json(&listed);
    }
    if images.is_empty() {
        eprintln!(
            "no images in {}; `cloude-initramfs build --language python` builds one",
            paths.images.display()
        );
        return Ok(());
    }
    let width = images
        .iter()
        .map(|image| image.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    say!(
        "{:width$}  {:>10}  {:>10}  {:>10}  {:>15}  {:>15}  SOURCE",
        "NAME",
        "VERSION",
        "SIZE",
        "MEMORY",
        "BUILT",
        "CHECKED"
    );
    for image in &images {
        let metadata = &image.metadata;
        let instead_of = metadata.instead_of.as_ref();
        say!(
            "{:width$}  {:>10}  {:>10}  {:>10}  {:>15}  {:>15}  {}{}",
            image.name,
            metadata.program_version.as_deref().unwrap_or("-"),
            text::size(metadata.summary.archive_bytes),
            text::size(metadata.required_memory),
            text::age_of(metadata.built_at),
            text::age_of(metadata.checked_at),
            metadata.source,
            instead_of.map_or_else(String::new, |it| format!(" instead of {it}")),
        );
    }
    Ok(())
}

fn listed(image: &StoredImage) -> Listed<'_> {
    Listed {
        name: &image.name,
        path: &image.path,
        metadata: &image.metadata,
    }
}

pub fn rm(args: &RmArgs, paths: &Paths) -> Result<(), Failure> {
    let store = paths.store();
    for name in &args.names {
        let freed = store.remove(name)?;
        say!("{name}: removed, {} freed", text::size(freed));
    }
    Ok(())
}

#[derive(Serialize)]
struct PruneReport {
    dry_run: bool,
    freed_bytes: u64,
    files: Vec<PathBuf>,
}

pub fn prune(args: &PruneArgs, paths: &Paths) -> Result<(), Failure> {
    let images = paths.store().list()?;
    let needed: HashSet<&str> = images
        .iter()
        .flat_map(|image| image.metadata.needs())
        .collect();
    let pruned = prune_cache(&paths.cache, args.dry_run, |item| needed.contains(item))?;
    let freed_bytes = pruned.iter().map(|file| file.bytes).sum();
    if args.json {
        let files = pruned.into_iter().map(|file| file.path).collect();
        return print_json(&PruneReport {
            dry_run: args.dry_run,
            freed_bytes,
            files,
        });
    }
    let verb = if args.dry_run {
        "would delete"
    } else {
        "deleted"
    };
    for file in &pruned {
        say!(
            "{verb} {} ({})",
            file.path.display(),
            text::size(file.bytes)
        );
    }
    let verb = if args.dry_run { "would free" } else { "freed" };
    say!(
        "{verb} {} in {} files",
        text::size(freed_bytes),
        pruned.len()
    );
    Ok(())
}
