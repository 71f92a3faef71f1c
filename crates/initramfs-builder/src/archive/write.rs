//! Writes a tree as one segment.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use cloude_protocol::boot::{self, ImageConfig};

use super::compress::Compressor;
use super::{ImageOptions, Summary, WriteError, memory};
use crate::cpio::{Header, Writer, file_type};
use crate::layer::{Content, Device};
use crate::tree::{IMPLICIT, Meta, Object, Tree, Visit};

/// Size of the copy buffer in bytes.
const COPY_BYTES: usize = 1 << 20;

/// Writes the tree as one segment, with `/.cloude/image.json` and, if absent, `/dev/console`. The length is a
/// multiple of 4 bytes. Equal trees, configurations and options give equal bytes.
pub fn write_image(
    mut tree: Tree,
    config: &ImageConfig,
    options: &ImageOptions,
    out: impl Write,
) -> Result<Summary, WriteError> {
    add_own_files(&mut tree, config)?;
    let compressor = Compressor::new(out, options.output)?;
    let mut image = Image {
        cpio: Writer::new(BufWriter::with_capacity(COPY_BYTES, compressor)),
        epoch: options.source_date_epoch,
        written: HashMap::new(),
        next_ino: 1,
        buffer: vec![0; COPY_BYTES],
        summary: Summary {
            warnings: tree.warnings(),
            ..Summary::default()
        },
    };
    tree.walk(|visit| image.entry(&visit))?;
    image.finish()
}

/// Adds the files that the agent and the kernel open.
fn add_own_files(tree: &mut Tree, config: &ImageConfig) -> Result<(), WriteError> {
    let directory = boot::DIR.trim_start_matches('/').as_bytes();
    let file = boot::IMAGE_CONFIG
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .as_bytes();
    let json = serde_json::to_vec(config).map_err(|error| WriteError::Write(error.into()))?;
    let meta = |mode| Meta { mode, ..IMPLICIT };
    tree.add(&[directory], meta(0o700), Object::Directory);
    tree.add(
        &[directory, file],
        meta(0o600),
        Object::File(Content::Bytes(json.into())),
    );
    // The kernel opens it before PID 1 starts (console_on_rootfs, init/main.c).
    let console = Device {
        block: false,
        major: 5,
        minor: 1,
    };
    tree.add(&[b"dev", b"console"], meta(0o600), Object::Device(console));
    Ok(())
}

struct Image<W: Write> {
    cpio: Writer<BufWriter<Compressor<W>>>,
    epoch: Option<u32>,
    /// Inode numbers of hard links that have been written once.
    written: HashMap<crate::tree::NodeId, u32>,
    next_ino: u32,
    buffer: Vec<u8>,
    summary: Summary,
}

impl<W: Write> Image<W> {
    fn entry(&mut self, visit: &Visit<'_>) -> Result<(), WriteError> {
        self.summary.entries += 1;
        // The kernel links other objects only (maybe_link, init/initramfs.c). It creates each symlink anew; cpio(1)
        // would see a second one as a file without data.
        let linked =
            visit.nlink > 1 && !matches!(visit.object, Object::Symlink(_) | Object::Directory);
        let known = self.written.get(&visit.node).copied();
        let ino = known.unwrap_or(self.next_ino);
        if known.is_none() || !linked {
            self.summary.inodes += 1;
        }
        let mut header = self.header(visit, linked);
        if let (true, Some(ino)) = (linked, known) {
            header.ino = ino;
            return self
                .cpio
                .header(&header, visit.path)
                .map_err(WriteError::Write);
        }
        header.ino = self.next_ino;
        self.next_ino += 1;
        if linked {
            self.written.insert(visit.node, ino);
        }
        match visit.object {
            Object::File(content) => self.file(header, visit.path, content),
            Object::Symlink(target) => {
                header.size = target.len() as u32;
                self.summary.unpacked_bytes += memory::symlink_pages(target.len() as u64);
                self.cpio
                    .header(&header, visit.path)
                    .map_err(WriteError::Write)?;
                self.cpio.data(target).map_err(WriteError::Write)?;
                self.cpio.pad().map_err(WriteError::Write)
            }
            _ => self
                .cpio
                .header(&header, visit.path)
                .map_err(WriteError::Write),
        }
    }

    /// A header without inode number and size.
    fn header(&self, visit: &Visit<'_>, linked: bool) -> Header {
        let (kind, nlink) = match visit.object {
            Object::Directory => (file_type::DIRECTORY, 2),
            Object::File(_) => (file_type::REGULAR, 1),
            Object::Symlink(_) => (file_type::SYMLINK, 1),
            Object::Device(Device { block: true, .. }) => (file_type::BLOCK, 1),
            Object::Device(_) => (file_type::CHARACTER, 1),
            Object::Fifo => (file_type::FIFO, 1),
        };
        let (rdev_major, rdev_minor) = match visit.object {
            Object::Device(device) => (device.major, device.minor),
            _ => (0, 0),
        };
        let mtime = visit.meta.mtime.unwrap_or(self.epoch.unwrap_or(0));
        Header {
            mode: kind | u32::from(visit.meta.mode),
            uid: visit.meta.uid,
            gid: visit.meta.gid,
            nlink: if linked { visit.nlink } else { nlink },
            mtime: mtime.min(self.epoch.unwrap_or(u32::MAX)),
            rdev_major,
            rdev_minor,
            ..Header::default()
        }
    }

    /// Writes a file with its data. Of hard links, the first one has the data: the kernel and cpio(1) accept it on any.
    fn file(
        &mut self,
        mut header: Header,
        path: &[u8],
        content: &Content,
    ) -> Result<(), WriteError> {
        let len = content.len();
        // Larger files were refused when the layer was read.
        header.size = u32::try_from(len)
            .map_err(|_| WriteError::Write(io::ErrorKind::FileTooLarge.into()))?;
        self.summary.file_bytes += len;
        self.summary.unpacked_bytes += memory::pages(len);
        self.cpio.header(&header, path).map_err(WriteError::Write)?;
        match content {
            Content::Bytes(bytes) => self.cpio.data(bytes).map_err(WriteError::Write)?,
            Content::Spooled { file, offset, len } => {
                let end = offset + len;
                let mut position = *offset;
                while position < end {
                    let count = (end - position).min(COPY_BYTES as u64) as usize;
                    let buffer = &mut self.buffer[..count];
                    file.read_exact_at(buffer, position)
                        .map_err(WriteError::Spool)?;
                    self.cpio.data(buffer).map_err(WriteError::Write)?;
                    position += count as u64;
                }
            }
        }
        self.cpio.pad().map_err(WriteError::Write)
    }

    fn finish(self) -> Result<Summary, WriteError> {
        let mut summary = self.summary;
        let (out, bytes) = self.cpio.finish().map_err(WriteError::Write)?;
        let compressor = out
            .into_inner()
            .map_err(|error| WriteError::Write(error.into_error()))?;
        summary.cpio_bytes = bytes;
        summary.archive_bytes = compressor.finish().map_err(WriteError::Write)?;
        Ok(summary)
    }
}
