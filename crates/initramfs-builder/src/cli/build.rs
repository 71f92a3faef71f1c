//! `cloude-initramfs build`.

use std::path::Path;
use std::time::Instant;

use cloude_initramfs_builder::boot_segment::BootSegment;
use cloude_initramfs_builder::debian::DebianOptions;
use cloude_initramfs_builder::pipeline::{
    BuildRequest, BuiltImage, Cancel, Destination, Program, Progress, build,
};
use cloude_initramfs_builder::registry::RegistryOptions;
use cloude_initramfs_builder::source::{Packages, Source};
use cloude_initramfs_builder::store::Metadata;
use cloude_protocol::boot::BootConfig;
use serde::Serialize;

use super::args::{BuildArgs, NetworkArgs, Show};
use super::failure::Failure;
use super::jsonl::{self, JsonLines};
use super::paths::Paths;
use super::progress::Bars;
use super::{language, text};

/// One image to build.
struct Target {
    name: String,
    source: Source,
    fallback: Option<Source>,
    program: Option<Program>,
}

pub fn run(args: BuildArgs, paths: &Paths, cancel: &Cancel) -> Result<(), Failure> {
    let targets = targets(&args)?;
    if targets.len() > 1 && (args.output.is_some() || args.name.is_some()) {
        return Err(Failure::usage(
            "--output and --name need a single image: name one source or language",
        ));
    }
    let append = append(&args)?;
    for target in targets {
        let request = request(&args, &target, paths, append.clone(), cancel)?;
        build_one(args.show, &target.name, &request)?;
    }
    Ok(())
}

fn targets(args: &BuildArgs) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    for text in &args.sources {
        let mut source: Source = text.parse().map_err(Failure::usage)?;
        add_packages(&mut source, &args.package)?;
        let name = args.name.clone().unwrap_or_else(|| name_of(&source));
        targets.push(Target {
            name,
            source,
            fallback: None,
            program: None,
        });
    }
    let mut names = args.language.clone();
    if args.all_languages || !names.is_empty() {
        let dir = language::dir(args.languages.languages_dir.as_deref())?;
        if args.all_languages {
            names = language::all(&dir)?;
        }
        for name in names {
            let language = language::load(&dir, &name)?;
            let (mut source, mut fallback) = language::sources(&language, &dir, args.source)?;
            for source in [&mut source].into_iter().chain(&mut fallback) {
                add_packages(source, &args.package)?;
            }
            let program = Some(Program::of(&language));
            let name = args.name.clone().unwrap_or(language.name);
            targets.push(Target {
                name,
                source,
                fallback,
                program,
            });
        }
    }
    Ok(targets)
}

fn add_packages(source: &mut Source, more: &[String]) -> Result<(), Failure> {
    if let Source::Debian(packages) = source {
        let all = [packages.packages.as_slice(), more].concat();
        *packages =
            Packages::new(&packages.suite, &all, packages.env.clone()).map_err(Failure::usage)?;
    }
    Ok(())
}

/// The default name of an image, from its source.
fn name_of(source: &Source) -> String {
    let name = match source {
        Source::Registry(reference) => {
            let last = reference.repository.rsplit('/').next().unwrap_or_default();
            match (&reference.tag, &reference.digest) {
                (Some(tag), _) if tag != "latest" => format!("{last}-{tag}"),
                (None, Some(digest)) => format!("{last}-{}", &digest[7..19]),
                _ => last.to_owned(),
            }
        }
        Source::Oci { path, .. } | Source::DockerArchive { path, .. } => path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        Source::Debian(packages) => format!("debian-{}", packages.suite),
    };
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect::<String>()
        .trim_start_matches('.')
        .to_owned()
}

fn request(
    args: &BuildArgs,
    target: &Target,
    paths: &Paths,
    append: Option<Vec<u8>>,
    cancel: &Cancel,
) -> Result<BuildRequest, Failure> {
    let mut request = BuildRequest::new(target.source.clone(), &target.name, &paths.cache);
    request.fallback = target.fallback.clone();
    request.program = target.program.clone();
    request.destination = match &args.output {
        Some(file) => Destination::File(file.clone()),
        None => Destination::Store {
            dir: paths.images.clone(),
            name: target.name.clone(),
        },
    };
    request.output = args.format.output(args.level);
    request.platform = args.platform.clone();
    request.limits = args.limits.limits();
    request.memory = args.memory;
    request.source_date_epoch = args.source_date_epoch;
    request.force = args.force;
    request.pull = args.pull;
    request.append = append;
    (request.registry, request.debian) = network(&args.network)?;
    request.cancel = cancel.clone();
    Ok(request)
}

/// How registries and Debian are reached.
pub fn network(args: &NetworkArgs) -> Result<(RegistryOptions, DebianOptions), Failure> {
    let mut registry = RegistryOptions {
        allow_http: args.allow_http.clone(),
        ..Default::default()
    };
    let mut debian = DebianOptions::default();
    for mirror in &args.mirror {
        let (of, url) = mirror.split_once('=').ok_or_else(|| {
            Failure::usage(format!("invalid mirror `{mirror}`: write REGISTRY=URL"))
        })?;
        match of {
            "debian" => debian.mirror = Some(url.to_owned()),
            _ => registry.mirrors.push((of.to_owned(), url.to_owned())),
        }
    }
    for option in &args.apt_option {
        let (key, value) = option
            .split_once('=')
            .filter(|_| !option.contains('"'))
            .ok_or_else(|| {
                Failure::usage(format!(
                    "`{option}` is not an option for apt; write KEY=VALUE"
                ))
            })?;
        debian.apt.push((key.to_owned(), value.to_owned()));
    }
    Ok((registry, debian))
}

/// The boot segment of an image that is booted by hand.
fn append(args: &BuildArgs) -> Result<Option<Vec<u8>>, Failure> {
    let Some(agent) = &args.agent else {
        return Ok(None);
    };
    let segment = (|| {
        let mut segment = BootSegment::new().agent_file(agent)?;
        if let Some(kernel) = &args.kernel {
            segment = segment.kernel(kernel)?;
        }
        segment.boot_config(&shell_config())
    })();
    Ok(Some(segment.map_err(Failure::new)?.to_bytes()))
}

fn shell_config() -> BootConfig {
    BootConfig {
        // The agent serves no requests in this mode: the token is not used.
        token: "0".repeat(64),
        hostname: "cloude".to_owned(),
        network: None,
        copy_output_to_console: false,
        shell: true,
        template: false,
    }
}

/// The last line of `--json`.
#[derive(Serialize)]
struct Built<'a> {
    event: &'static str,
    path: &'a Path,
    seconds: f64,
    metadata: &'a Metadata,
}

/// Builds an image and prints the outcome.
pub fn build_one(show: Show, name: &str, request: &BuildRequest) -> Result<(), Failure> {
    let start = Instant::now();
    let progress: Box<dyn Progress> = match show.json {
        true => Box::new(JsonLines::new(name)),
        false => Box::new(Bars::new(name, show.quiet)),
    };
    let built = build(request, progress.as_ref());
    drop(progress);
    let built = built.map_err(|error| {
        let failure = Failure::from(error);
        Failure {
            message: format!("{name}: {}", failure.message),
            ..failure
        }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    if show.json {
        let event = if built.up_to_date {
            "up_to_date"
        } else {
            "built"
        };
        let (path, metadata) = (built.path.as_path(), &built.metadata);
        jsonl::print(
            name,
            &Built {
                event,
                path,
                seconds,
                metadata,
            },
        );
    } else if !show.quiet {
        report(name, &built, seconds);
    }
    Ok(())
}

fn report(name: &str, built: &BuiltImage, seconds: f64) {
    if built.up_to_date {
        return say!(
            "{name}: up to date{} ({})",
            version(&built.metadata),
            built.path.display()
        );
    }
    let summary = &built.metadata.summary;
    say!(
        "{name}: {}, {} entries, needs {} of memory, built in {seconds:.1} s from {}{} ({})",
        text::size(summary.archive_bytes),
        summary.entries,
        text::size(built.metadata.required_memory),
        built.metadata.source,
        version(&built.metadata),
        built.path.display(),
    );
    let warnings = &summary.warnings;
    if warnings.capabilities_dropped > 0 {
        say!(
            "{name}: {} file capabilities were dropped; programs that rely on one need root",
            warnings.capabilities_dropped
        );
    }
}

/// `, version 3.13.5`, if it is known.
fn version(metadata: &Metadata) -> String {
    let version = metadata.program_version.as_ref();
    version.map_or_else(String::new, |version| format!(", version {version}"))
}
