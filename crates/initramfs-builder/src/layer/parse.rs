//! The tar archive itself: headers and what extends them (POSIX.1-2017, pax, "EXTENDED DESCRIPTION";
//! GNU tar manual, "Basic Tar Format").
//!
//! The tar crate lays out the header's fields. Its iteration is not used: it holds extension headers
//! of any size in memory. Where readers of tar differ we do as Go's `archive/tar`, which every
//! container tool reads layers with.

use tar::{GnuExtSparseHeader, Header};

use super::context::Context;
use super::decompress::Chunks;
use super::display::display_path;
use super::entry::{Content, Entry, EntryKind, Warnings};
use super::error::LayerError;
use super::fields::{
    BLOCK, Problem, check_length, clean, device, owner, padding, signed, stored_size, truncated,
    unsigned,
};
use super::number;
use super::pax::{self, Pax};
use super::sparse::{self, PaxForm, Segment, SparseMap};
use super::spool::Spool;
use crate::limits::{LimitExceeded, NEWC_MAX_FILE_BYTES, RATIO_GRACE_BYTES};

type Block = [u8; BLOCK];

/// Reads a layer's entries.
pub(super) struct Parser<'a> {
    input: Chunks,
    context: &'a Context,
    spool: Spool,
    entries: Vec<Entry>,
    warnings: Warnings,
    /// Which entry is being read, from 1, and its path, for messages.
    entry: u64,
    path: Vec<u8>,
    /// Zeros that holes of sparse files stand for.
    holes: u64,
    stored: u64,
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'a> Parser<'a> {
    pub fn new(input: Chunks, context: &'a Context) -> Result<Self, LayerError> {
        Ok(Parser {
            input,
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

    /// Reads all entries; then the rest of the input, for the digest.
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

    /// Reads the headers of one entry and the entry; false at the end of the archive.
    fn next_entry(&mut self) -> Result<bool, Problem> {
        let mut extensions = Extensions::default();
        self.entry += 1;
        loop {
            let Some(block) = self.header_block()? else {
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

    /// The next header, or none where the archive ends: at two blocks of zeros, or at the input's end.
    fn header_block(&mut self) -> Result<Option<Block>, Problem> {
        if self.input.fill()?.is_empty() {
            return Ok(None);
        }
        let block = self.block()?;
        if block == [0; BLOCK] {
            if self.input.fill()?.is_empty() || self.block()? == [0; BLOCK] {
                return Ok(None);
            }
            return Err("a block of zeros stands between entries".into());
        }
        // The sum of the header's bytes, its own field taken as spaces. Some old tars summed signed bytes.
        let sum = |value: fn(u8) -> i64| -> i64 {
            let whole: i64 = block.iter().map(|byte| value(*byte)).sum();
            let field: i64 = block[148..156].iter().map(|byte| value(*byte)).sum();
            whole - field + 8 * i64::from(b' ')
        };
        let expected = number::field(&block[148..156]);
        if expected != Some(sum(i64::from)) && expected != Some(sum(|byte| i64::from(byte as i8))) {
            return Err(
                "its header's checksum is wrong: this is no tar archive, or a damaged one".into(),
            );
        }
        Ok(Some(block))
    }

    fn block(&mut self) -> Result<Block, Problem> {
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok(block)
    }

    fn read_exact(&mut self, mut into: &mut [u8]) -> Result<(), Problem> {
        while !into.is_empty() {
            let bytes = self.input.fill()?;
            if bytes.is_empty() {
                return Err(truncated());
            }
            let count = bytes.len().min(into.len());
            into[..count].copy_from_slice(&bytes[..count]);
            self.input.consume(count);
            into = &mut into[count..];
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> Result<(), Problem> {
        while count > 0 {
            let available = self.input.fill()?.len();
            if available == 0 {
                return Err(truncated());
            }
            let step = count.min(available as u64);
            self.input.consume(step as usize);
            count -= step;
        }
        Ok(())
    }

    /// The padding behind a file's data, which may be missing at the end of the layer: `umoci insert
    /// --opaque` does not end its archives, and what docker uses to read them takes that.
    fn skip_last_padding(&mut self, size: u64) -> Result<(), Problem> {
        if self.input.fill()?.is_empty() {
            return Ok(());
        }
        self.skip(padding(size))
    }

    /// The body of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        let limit = self.context.budget.limits().max_header_bytes;
        if size > limit {
            return Err(LimitExceeded::HeaderBytes { size, limit }.into());
        }
        let mut body = vec![0; size as usize];
        self.read_exact(&mut body)?;
        self.skip(padding(size))?;
        Ok(body)
    }

    /// A GNU long name: what is before its terminating NULs.
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
            return Err("a name has a NUL in it".into());
        }
        let size = stored_size(size, &pax)?;
        let flag = header.as_old().linkflag[0];
        let kind = match flag {
            // Before POSIX a directory was a file whose name ended in a slash.
            0 if raw_path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => EntryKind::File(self.file(&pax, size)?),
            b'S' => EntryKind::File(self.old_gnu_sparse(header, size)?),
            // What follows has no data, whatever its size says.
            b'1' => EntryKind::Hardlink(self.link_target(raw_link)?),
            b'2' => EntryKind::Symlink(self.symlink_target(raw_link)?),
            b'3' | b'4' => EntryKind::Device(device(header, flag == b'4')?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                return Err(format!(
                    "its type flag is `{}`, which no image layer has",
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

    /// A regular file: whole, or sparse in one of the PAX forms.
    fn file(&mut self, pax: &Pax, size: u64) -> Result<Content, Problem> {
        match pax.sparse.form()? {
            None => {
                self.check_file_size(size)?;
                let start = self.spool.position();
                self.copy(size)?;
                self.skip_last_padding(size)?;
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
                        self.block()
                    },
                )?;
                self.sparse(segments, real_size, size - blocks * BLOCK as u64, size)
            }
        }
    }

    /// A sparse file in the old GNU form, its map in the header and the blocks after it.
    fn old_gnu_sparse(&mut self, header: &Header, size: u64) -> Result<Content, Problem> {
        let gnu = header
            .as_gnu()
            .ok_or("it is a GNU sparse file in an archive not of GNU's format")?;
        let real_size = unsigned(&gnu.realsize, "real size")?;
        let mut segments = Vec::new();
        for segment in &gnu.sparse {
            segments.extend(sparse::old_gnu_segment(segment)?);
        }
        let mut more = gnu.is_extended();
        while more {
            let mut extension = GnuExtSparseHeader::new();
            self.read_exact(extension.as_mut_bytes())?;
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

    /// The data of a sparse file: `stored` bytes, of `size` that the entry has with its map.
    fn sparse(
        &mut self,
        segments: Vec<Segment>,
        real_size: u64,
        stored: u64,
        size: u64,
    ) -> Result<Content, Problem> {
        self.check_segments(&segments)?;
        self.check_file_size(real_size)?;
        // The map of form 1.0 is followed by data that is padded on its own.
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
        self.skip(padding(size))?;
        Ok(self.spool.content(start))
    }

    /// Holes cost nothing here, but the archive that we write has no holes.
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

    fn copy(&mut self, mut count: u64) -> Result<(), Problem> {
        self.stored += count;
        while count > 0 {
            let bytes = self.input.fill()?;
            if bytes.is_empty() {
                return Err(truncated());
            }
            let step = count.min(bytes.len() as u64) as usize;
            self.spool.write(&bytes[..step])?;
            self.input.consume(step);
            count -= step as u64;
        }
        Ok(())
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
            return Err("it is a symlink to nothing".into());
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
