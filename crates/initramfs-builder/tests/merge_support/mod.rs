//! Builds tar archives byte by byte, and merges them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod compare;
pub mod umoci;

use std::fmt::Write as _;

use cloude_initramfs_builder::archive::{ImageOptions, ListedEntry, Output, list, write_image};
use cloude_initramfs_builder::layer::{Compression, Context};
use cloude_initramfs_builder::limits::Limits;
use cloude_initramfs_builder::tree::{Tree, TreeError};
use cloude_protocol::boot::ImageConfig;

/// One entry; the defaults are a file of mode 0644 by root at 1,000,000,000 s.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    pub flag: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    /// The size field, if it differs from the size of the data.
    pub size: Option<u64>,
    pub device: (u32, u32),
}

impl Entry {
    pub fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        Entry {
            name: name.as_ref().to_vec(),
            flag,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            link: Vec::new(),
            data: Vec::new(),
            size: None,
            device: (0, 0),
        }
    }

    pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Entry {
            data: data.as_ref().to_vec(),
            ..Entry::new(b'0', name)
        }
    }

    pub fn dir(name: impl AsRef<[u8]>) -> Self {
        Entry {
            mode: 0o755,
            ..Entry::new(b'5', name)
        }
    }

    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Entry {
            link: target.as_ref().to_vec(),
            mode: 0o777,
            ..Entry::new(b'2', name)
        }
    }

    pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Entry {
            link: target.as_ref().to_vec(),
            ..Entry::new(b'1', name)
        }
    }

    pub fn device(flag: u8, name: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Entry {
            device: (major, minor),
            mode: 0o600,
            ..Entry::new(flag, name)
        }
    }

    pub fn mode(self, mode: u32) -> Self {
        Entry { mode, ..self }
    }

    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Entry { uid, gid, ..self }
    }

    pub fn mtime(self, mtime: u64) -> Self {
        Entry { mtime, ..self }
    }
}

/// A tar archive under construction.
#[derive(Clone, Debug, Default)]
pub struct Tar(pub Vec<u8>);

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() <= digits {
        field[..digits].copy_from_slice(text.as_bytes());
        return;
    }
    // Base 256.
    let start = field.len() - 8;
    field[start..].copy_from_slice(&value.to_be_bytes());
    field[0] |= 0x80;
}

/// Sets the checksum of a header.
pub fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// The 512 bytes of an entry's header, in GNU's format; names are cut at 100 bytes.
    pub fn header(entry: &Entry) -> [u8; 512] {
        let mut block = [0; 512];
        let name = &entry.name[..entry.name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        octal(&mut block[100..108], u64::from(entry.mode));
        octal(&mut block[108..116], u64::from(entry.uid));
        octal(&mut block[116..124], u64::from(entry.gid));
        octal(
            &mut block[124..136],
            entry.size.unwrap_or(entry.data.len() as u64),
        );
        octal(&mut block[136..148], entry.mtime);
        block[156] = entry.flag;
        let link = &entry.link[..entry.link.len().min(100)];
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar  \0");
        octal(&mut block[329..337], u64::from(entry.device.0));
        octal(&mut block[337..345], u64::from(entry.device.1));
        checksum(&mut block);
        block
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Data with its padding.
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An entry, with GNU headers for long names and targets.
    pub fn add(mut self, entry: Entry) -> Self {
        for (flag, long) in [(b'L', &entry.name), (b'K', &entry.link)] {
            if long.len() > 100 {
                let header = Entry {
                    data: long.clone(),
                    ..Entry::new(flag, "././@LongLink")
                };
                self = self.raw(&Tar::header(&header)).data(&header.data);
            }
        }
        self.raw(&Tar::header(&entry)).data(&entry.data)
    }

    /// An extended header with these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.pax_flag(b'x', records)
    }

    pub fn pax_flag(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (keyword, value) in records {
            let rest = keyword.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body.extend_from_slice(format!("{length} {keyword}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.add(Entry {
            data: body,
            ..Entry::new(flag, "PaxHeaders/x")
        })
    }

    /// The archive with its end marker.
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

/// Entries as an archive.
pub fn tar(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    entries.into_iter().fold(Tar::new(), Tar::add).end()
}

/// Merges layers under limits.
pub fn merge(layers: &[Vec<u8>], limits: Limits) -> Result<Tree, TreeError> {
    let context = Context::new(limits, std::env::temp_dir());
    let mut tree = Tree::new(&context);
    for layer in layers {
        tree.apply_layer(&layer[..], Compression::Detect, &context)?;
    }
    Ok(tree)
}

/// The plain initramfs of a tree.
pub fn cpio(tree: Tree) -> Vec<u8> {
    cpio_with(
        tree,
        &ImageOptions {
            output: Output::Plain,
            source_date_epoch: None,
        },
    )
}

pub fn cpio_with(tree: Tree, options: &ImageOptions) -> Vec<u8> {
    let mut out = Vec::new();
    write_image(tree, &ImageConfig::default(), options, &mut out).unwrap();
    out
}

/// The entries of an image of these layers.
pub fn entries(layers: &[Vec<u8>]) -> Vec<ListedEntry> {
    let bytes = cpio(merge(layers, Limits::default()).unwrap());
    list(&bytes[..]).unwrap().map(Result::unwrap).collect()
}

/// The paths of an image, without the root and the entries that the builder adds.
pub fn paths(layers: &[Vec<u8>]) -> Vec<String> {
    let own = [".", ".cloude", ".cloude/image.json", "dev", "dev/console"];
    let paths = entries(layers)
        .into_iter()
        .map(|entry| String::from_utf8(entry.path).unwrap());
    paths.filter(|path| !own.contains(&path.as_str())).collect()
}

/// One line about each entry: permissions, owner, path and target.
pub fn lines(layers: &[Vec<u8>]) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in entries(layers) {
        let header = &entry.header;
        let mut line = format!(
            "{:o} {}:{} {} ",
            header.mode, header.uid, header.gid, header.size
        );
        write!(line, "{}", entry.path.escape_ascii()).unwrap();
        if let Some(target) = entry.target {
            write!(line, " -> {}", target.escape_ascii()).unwrap();
        }
        lines.push(line);
    }
    lines
}

/// The error of an image that is refused.
pub fn refused(layers: &[Vec<u8>]) -> String {
    refused_with(layers, Limits::default())
}

pub fn refused_with(layers: &[Vec<u8>], limits: Limits) -> String {
    merge(layers, limits)
        .expect_err("the image is refused")
        .to_string()
}
