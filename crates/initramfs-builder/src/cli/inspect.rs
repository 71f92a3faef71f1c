//! `cloude-initramfs inspect`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use cloude_initramfs_builder::archive::{ListedEntry, list};
use serde::Serialize;

use super::args::InspectArgs;
use super::failure::Failure;
use super::output::print_json;
use super::paths::Paths;
use super::text;

/// One entry as JSON. Bytes of names that are not UTF-8 are replaced by U+FFFD.
#[derive(Serialize)]
struct EntryLine {
    path: String,
    mode: String,
    uid: u32,
    gid: u32,
    nlink: u32,
    ino: u32,
    mtime: u32,
    size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
}

/// The summary of a file that is not in the store.
#[derive(Serialize)]
struct FileSummary {
    path: PathBuf,
    archive_bytes: u64,
    entries: u64,
    file_bytes: u64,
}

pub fn run(args: &InspectArgs, paths: &Paths) -> Result<(), Failure> {
    let stored = paths.store().get(&args.image);
    let path = stored
        .as_ref()
        .map_or_else(|| PathBuf::from(&args.image), |image| image.path.clone());
    if args.files {
        return match list_files(&path, args.json) {
            // The reader closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|error| reading(&path, &args.image, &error)),
        };
    }
    let Some(image) = stored else {
        return file(&path, args).map_err(|error| reading(&path, &args.image, &error));
    };
    if args.json {
        return print_json(&image.metadata);
    }
    let metadata = &image.metadata;
    say!("name      {}", image.name);
    say!("path      {}", image.path.display());
    say!("source    {} ({})", metadata.source, metadata.platform);
    if let Some(digest) = &metadata.digest {
        say!("digest    {digest}");
    }
    if let Some(version) = &metadata.program_version {
        say!("version   {version}");
    }
    say!("initramfs {}", metadata.archive_digest);
    say!("built     {}", text::age_of(metadata.built_at));
    say!("checked   {}", text::age_of(metadata.checked_at));
    say!("archive   {}", text::size(metadata.summary.archive_bytes));
    say!(
        "unpacked  {} in {} entries",
        text::size(metadata.summary.unpacked_bytes),
        metadata.summary.entries
    );
    say!(
        "memory    {} at least",
        text::size(metadata.required_memory)
    );
    say!(
        "user      {}",
        if metadata.config.user.is_empty() {
            "root"
        } else {
            &metadata.config.user
        }
    );
    say!("env       {}", metadata.config.env.join("\n          "));
    say!(
        "command   {:?} {:?}",
        metadata.config.entrypoint,
        metadata.config.cmd
    );
    for layer in &metadata.layers {
        say!("layer     {} {}", layer.digest, text::size(layer.size));
    }
    for package in &metadata.packages {
        say!("package   {package}");
    }
    Ok(())
}

fn reading(path: &Path, image: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        return Failure::new(format!(
            "no image and no file is called `{image}`; `cloude-initramfs ls` lists the images"
        ));
    }
    Failure::new(format!("cannot read `{}`: {error}", path.display()))
}

fn file(path: &Path, args: &InspectArgs) -> io::Result<()> {
    let file = File::open(path)?;
    let archive_bytes = file.metadata()?.len();
    let (mut entries, mut file_bytes) = (0, 0);
    for entry in list(file)? {
        entries += 1;
        file_bytes += u64::from(entry?.header.size);
    }
    if args.json {
        let summary = FileSummary {
            path: path.to_owned(),
            archive_bytes,
            entries,
            file_bytes,
        };
        say!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        say!("path      {}", path.display());
        say!("archive   {}", text::size(archive_bytes));
        say!("files     {} in {entries} entries", text::size(file_bytes));
    }
    Ok(())
}

fn list_files(path: &Path, json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for entry in list(File::open(path)?)? {
        let entry = entry?;
        if json {
            serde_json::to_writer(&mut out, &entry_line(&entry))?;
            writeln!(out)?;
        } else {
            write_entry(&mut out, &entry)?;
        }
    }
    out.flush()
}

fn entry_line(entry: &ListedEntry) -> EntryLine {
    let device = matches!(entry.header.mode & 0o170_000, 0o020_000 | 0o060_000);
    EntryLine {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        mode: format!("{:o}", entry.header.mode),
        uid: entry.header.uid,
        gid: entry.header.gid,
        nlink: entry.header.nlink,
        ino: entry.header.ino,
        mtime: entry.header.mtime,
        size: entry.header.size,
        target: entry
            .target
            .as_ref()
            .map(|target| String::from_utf8_lossy(target).into_owned()),
        rdev: device.then_some((entry.header.rdev_major, entry.header.rdev_minor)),
    }
}

fn write_entry(out: &mut impl Write, entry: &ListedEntry) -> io::Result<()> {
    write!(
        out,
        "{:06o} {}:{} {:>10} ",
        entry.header.mode, entry.header.uid, entry.header.gid, entry.header.size
    )?;
    write!(out, "{}", entry.path.escape_ascii())?;
    if let Some(target) = &entry.target {
        write!(out, " -> {}", target.escape_ascii())?;
    }
    writeln!(out)
}
