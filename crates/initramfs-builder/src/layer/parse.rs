//! Parses the tar archive: headers and extension headers (POSIX.1-2017, pax, "EXTENDED DESCRIPTION"; GNU tar manual,
//! "Basic Tar Format").
//!
//! The tar crate defines the header's fields. Its iterator is not used: it reads extension headers of any size into
//! memory. Where tar readers disagree, this one behaves like Go's `archive/tar`, with which container tools read
//! layers.

use tar::{GnuExtSparseHeader, Header};

use super::blocks::{BLOCK, Blocks, Problem, padding};
use super::context::Context;
use super::decompress::Chunks;
use super::display::display_path;
use super::entry::{Content, Entry, EntryKind, Warnings};
use super::error::LayerError;
use super::fields::{check_length, clean, device, owner, signed, stored_size, unsigned};
use super::pax::{self, Pax};
use super::sparse::{self, PaxForm, Segment, SparseMap};
use super::spool::Spool;
use crate::limits::{LimitExceeded, NEWC_MAX_FILE_BYTES, RATIO_GRACE_BYTES};

/// Reads the entries of a layer.
pub(super) struct Parser<'a> {
    input: Blocks,
    context: &'a Context,
    spool: Spool,
    entries: Vec<Entry>,
    warnings: Warnings,
    /// Number of the current entry, from 1, and its path, for messages.
    entry: u64,
    path: Vec<u8>,
    /// Bytes of holes in sparse files.
    holes: u64,
    stored: u64,
}

/// The extension headers before an entry.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'a> Parser<'a> {
    pub fn new(input: Chunks, context: &'a Context) -> Result<Self, LayerError> {
        Ok(Parser {
            input: Blocks::new(input),
            context,
            spool: Spool::new(&context.spool_dir)?,
            entries: Vec::new(),
            warnings: Warnings::default(),
            entry: 0,
            path: Vec::new(),
            holes: 0,
            stored: 0,
        })
    }

    /// Reads all entries, then the rest of the input for the digest.
    pub fn run(mut self) -> Result<(Vec<Entry>, Warnings, String), LayerError> {
        loop {
            self.path.clear();
            match self.next_entry() {
                Ok(true) => {}
                Ok(false) => break,
                Err(Problem::Layer(error)) => return Err(error),
                Err(Problem::Text(problem)) => {
                    let path = display_path(&self.path);
                    return Err(LayerError::Entry {
                        entry: self.entry,
                        path,
                        problem,
                    });
                }
            }
        }
        self.spool.finish()?;
        Ok((self.entries, self.warnings, self.input.finish()?))
    }

    /// Reads one entry with its headers. False at the end of the archive.
    fn next_entry(&mut self) -> Result<bool, Problem> {
        let mut extensions = Extensions::default();
        self.entry += 1;
        loop {
            let Some(block) = self.input.header()? else {
                return Ok(false);
            };
            self.context.budget.take_entry()?;
            let header = Header::from_byte_slice(&block);
            let size = unsigned(&header.as_old().size, "size")?;
            match header.as_old().linkflag[0] {
                b'x' => extensions.pax = Pax::parse(&self.extension(size)?)?,
                b'g' => pax::check_global(&self.extension(size)?)?,
                b'L' => extensions.long_name = Some(self.long_name(size)?),
                b'K' => extensions.long_link = Some(self.long_name(size)?),
                _ => {
                    self.entry(header, size, extensions)?;
                    return Ok(true);
                }
            }
        }
    }

    /// The body of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        let limit = self.context.budget.limits().max_header_bytes;
        if size > limit {
            return Err(LimitExceeded::HeaderBytes { size, limit }.into());
        }
        let mut body = vec![0; size as usize];
        self.input.read_exact(&mut body)?;
        self.input.skip(padding(size))?;
        Ok(body)
    }

    /// A GNU long name, without its terminating NULs.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        let mut name = self.extension(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<(), Problem> {
        let Extensions {
            pax,
            long_name,
            long_link,
        } = extensions;
        let raw_path = long_name
            .or_else(|| pax.sparse.name.clone())
            .or(pax.path.clone())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let raw_link = long_link.or(pax.linkpath.clone()).unwrap_or_else(|| {
            header
                .link_name_bytes()
                .map(|link| link.into_owned())
                .unwrap_or_default()
        });
        self.path.clone_from(&raw_path);
        if raw_path.contains(&0) || raw_link.contains(&0) {
            return Err("its name or link target contains a NUL".into());
        }
        let size = stored_size(size, &pax)?;
        let flag = header.as_old().linkflag[0];
        let kind = match flag {
            // In the v7 format a directory is a file whose name ends in a slash.
            0 if raw_path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => EntryKind::File(self.file(&pax, size)?),
            b'S' => EntryKind::File(self.old_gnu_sparse(header, size)?),
            // Entries of the following types have no data: their size is ignored.
            b'1' => EntryKind::Hardlink(self.link_target(raw_link)?),
            b'2' => EntryKind::Symlink(self.symlink_target(raw_link)?),
            b'3' | b'4' => EntryKind::Device(device(header, flag == b'4')?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                return Err(format!(
                    "its type flag is `{}`, which image layers cannot have",
                    other.escape_ascii()
                )
                .into());
            }
        };
        let entry = self.metadata(header, &pax, kind)?;
        self.entries.push(entry);
        Ok(())
    }

    fn metadata(&mut self, header: &Header, pax: &Pax, kind: EntryKind) -> Result<Entry, Problem> {
        let fields = header.as_old();
        let path = clean(&self.path, self.context)?;
        self.context.budget.take_metadata(path.len() as u64)?;
        self.warnings.capabilities_dropped += u64::from(pax.capability);
        self.warnings.xattrs_dropped += pax.xattrs;
        let mode = signed(&fields.mode, "mode")?;
        let mtime = match pax.mtime {
            Some(seconds) => seconds,
            None => signed(&fields.mtime, "mtime")?,
        };
        let clamped = mtime.clamp(0, i64::from(u32::MAX));
        self.warnings.mtimes_clamped += u64::from(clamped != mtime);
        Ok(Entry {
            path,
            kind,
            mode: (mode & 0o7777) as u16,
            uid: owner(pax.uid, &fields.uid, "uid")?,
            gid: owner(pax.gid, &fields.gid, "gid")?,
            mtime: clamped as u32,
        })
    }

    /// A regular file, possibly sparse in one of the PAX forms.
    fn file(&mut self, pax: &Pax, size: u64) -> Result<Content, Problem> {
        match pax.sparse.form()? {
            None => {
                self.check_file_size(size)?;
                let start = self.spool.position();
                self.copy(size)?;
                self.input.skip_last_padding(size)?;
                Ok(self.spool.content(start))
            }
            Some(PaxForm::InHeader {
                real_size,
                segments,
            }) => self.sparse(segments, real_size, size, size),
            Some(PaxForm::BeforeData { real_size }) => {
                let limit = self.context.budget.limits().max_sparse_segments;
                let path = display_path(&self.path);
                let mut blocks = 0u64;
                let segments = sparse::map_before_data(
                    limit,
                    || {
                        LimitExceeded::SparseSegments {
                            path: path.clone(),
                            limit,
                        }
                        .into()
                    },
                    || {
                        blocks += 1;
                        if blocks * BLOCK as u64 > size {
                            return Err("its sparse map is longer than its data".into());
                        }
                        self.input.block()
                    },
                )?;
                self.sparse(segments, real_size, size - blocks * BLOCK as u64, size)
            }
        }
    }

    /// A sparse file in the old GNU form: the map is in the header and in the blocks after it.
    fn old_gnu_sparse(&mut self, header: &Header, size: u64) -> Result<Content, Problem> {
        let gnu = header
            .as_gnu()
            .ok_or("it is a GNU sparse file in an archive of another format")?;
        let real_size = unsigned(&gnu.realsize, "real size")?;
        let mut segments = Vec::new();
        for segment in &gnu.sparse {
            segments.extend(sparse::old_gnu_segment(segment)?);
        }
        let mut more = gnu.is_extended();
        while more {
            let mut extension = GnuExtSparseHeader::new();
            self.input.read_exact(extension.as_mut_bytes())?;
            for segment in extension.sparse() {
                segments.extend(sparse::old_gnu_segment(segment)?);
            }
            self.check_segments(&segments)?;
            more = extension.is_extended();
        }
        self.sparse(segments, real_size, size, size)
    }

    fn check_segments(&self, segments: &[Segment]) -> Result<(), Problem> {
        let limit = self.context.budget.limits().max_sparse_segments;
        if segments.len() as u64 > limit {
            let path = display_path(&self.path);
            return Err(LimitExceeded::SparseSegments { path, limit }.into());
        }
        Ok(())
    }

    /// The data of a sparse file: `stored` bytes of data in an entry of `size` bytes with its map.
    fn sparse(
        &mut self,
        segments: Vec<Segment>,
        real_size: u64,
        stored: u64,
        size: u64,
    ) -> Result<Content, Problem> {
        self.check_segments(&segments)?;
        self.check_file_size(real_size)?;
        // In form 1.0, map and data are padded separately.
        let map = SparseMap::new(segments, real_size, stored)?;
        self.take_holes(real_size - stored)?;
        let start = self.spool.position();
        let mut position = 0;
        for segment in map.segments {
            self.spool.hole(segment.offset - position)?;
            self.copy(segment.len)?;
            position = segment.offset + segment.len;
        }
        self.spool.hole(map.real_size - position)?;
        self.input.skip(padding(size))?;
        Ok(self.spool.content(start))
    }

    /// Counts holes against the limits: newc has no holes, so that they are written as zeros.
    fn take_holes(&mut self, bytes: u64) -> Result<(), Problem> {
        self.holes += bytes;
        self.context.budget.take_unpacked(bytes)?;
        let limit = self.context.budget.limits().max_ratio;
        let stored = self.stored.saturating_add(RATIO_GRACE_BYTES);
        if self.holes > stored.saturating_mul(limit) {
            return Err(LimitExceeded::Ratio {
                compressed: stored,
                unpacked: self.holes,
                limit,
            }
            .into());
        }
        Ok(())
    }

    fn copy(&mut self, count: u64) -> Result<(), Problem> {
        self.stored += count;
        let spool = &mut self.spool;
        self.input.copy(count, |bytes| spool.write(bytes))
    }

    fn check_file_size(&self, size: u64) -> Result<(), Problem> {
        let limit = self
            .context
            .budget
            .limits()
            .max_file_bytes
            .min(NEWC_MAX_FILE_BYTES);
        if size > limit {
            return Err(LimitExceeded::FileBytes {
                path: display_path(&self.path),
                size,
                limit,
            }
            .into());
        }
        Ok(())
    }

    fn link_target(&mut self, target: Vec<u8>) -> Result<Vec<u8>, Problem> {
        let target = clean(&target, self.context)?;
        self.context.budget.take_metadata(target.len() as u64)?;
        Ok(target)
    }

    fn symlink_target(&mut self, target: Vec<u8>) -> Result<Vec<u8>, Problem> {
        if target.is_empty() {
            return Err("it is a symlink with an empty target".into());
        }
        let limits = self.context.budget.limits();
        check_length(
            &target,
            limits.max_symlink_bytes.min(4095),
            "a symlink's target",
            "max_symlink_bytes",
        )?;
        self.context.budget.take_metadata(target.len() as u64)?;
        Ok(target)
    }
}
