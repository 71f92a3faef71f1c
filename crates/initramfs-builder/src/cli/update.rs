//! `cloude-initramfs update`.

use std::path::Path;

use cloude_initramfs_builder::pipeline::{BuildRequest, Cancel, Destination, Platform, Program};
use cloude_initramfs_builder::source::Source;
use cloude_initramfs_builder::store::{Metadata, StoreError, StoredImage};
use cloude_protocol::languages;

use super::args::{SourceChoice, UpdateArgs};
use super::build::{build_one, network};
use super::paths::Paths;
use super::{Failure, language};

/// Compares each image with its source, and builds it again if that has something newer. An image that cannot be
/// updated does not keep the others from it.
pub fn run(args: &UpdateArgs, paths: &Paths, cancel: &Cancel) -> Result<(), Failure> {
    let store = paths.store();
    let images = match args.names.as_slice() {
        [] => store.list()?,
        names => names
            .iter()
            .map(|name| {
                store.get(name).ok_or_else(|| StoreError::Missing {
                    name: name.clone(),
                    dir: paths.images.clone(),
                })
            })
            .collect::<Result<_, _>>()?,
    };
    let languages = language::dir(args.languages.languages_dir.as_deref()).ok();
    let mut failed = Vec::new();
    for image in &images {
        let updated = request(args, image, languages.as_deref(), paths)
            .map(|request| BuildRequest {
                cancel: cancel.clone(),
                ..request
            })
            .and_then(|request| build_one(args.show, &image.name, &request));
        if cancel.is_set() {
            return updated;
        }
        if let Err(failure) = updated {
            eprintln!("cloude-initramfs: {}", failure.message);
            failed.push(image.name.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("not updated: {}", failed.join(", "))))
}

/// The request that built the image: of the language with its name, else of its record.
fn request(
    args: &UpdateArgs,
    image: &StoredImage,
    languages: Option<&Path>,
    paths: &Paths,
) -> Result<BuildRequest, Failure> {
    let metadata = &image.metadata;
    let named = |message| Failure::new(format!("{}: {message}", image.name));
    let is_language =
        languages.filter(|dir| dir.join(&image.name).join(languages::FILE_NAME).is_file());
    let (source, fallback, program) = match is_language {
        Some(dir) => {
            let language = language::load(dir, &image.name)?;
            // The same kind of source again: packages take no place of an image because of an update.
            let choice = match (&metadata.instead_of, metadata.packages.is_empty()) {
                (Some(_), _) => SourceChoice::Auto,
                (None, true) => SourceChoice::Image,
                (None, false) => SourceChoice::Debian,
            };
            let (source, fallback) = language::sources(&language, dir, choice)?;
            (source, fallback, Some(Program::of(&language)))
        }
        None => (recorded_source(metadata).map_err(named)?, None, None),
    };
    let platform: Platform = metadata
        .platform
        .parse()
        .map_err(|error| named(format!("{error}")))?;
    let (registry, debian) = network(&args.network)?;
    let mut request = BuildRequest::new(source, &image.name, &paths.cache);
    request.destination = Destination::Store {
        dir: paths.images.clone(),
        name: image.name.clone(),
    };
    request.fallback = fallback;
    request.program = program;
    request.platform = platform;
    request.output = metadata.output;
    request.source_date_epoch = metadata.source_date_epoch;
    request.pull = true;
    (request.registry, request.debian) = (registry, debian);
    Ok(request)
}

/// The source that a record names. The environment of packages is in the image's configuration.
fn recorded_source(metadata: &Metadata) -> Result<Source, String> {
    let mut source: Source = metadata
        .source
        .parse()
        .map_err(|error| format!("{error}"))?;
    if let Source::Debian(packages) = &mut source {
        let env = metadata
            .config
            .env
            .iter()
            .filter_map(|line| line.split_once('='));
        packages.env = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    }
    Ok(source)
}
