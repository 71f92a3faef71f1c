//! Lists the entries of an initramfs.

use std::io::{self, BufRead, BufReader, Read};

use super::lz4;
use crate::cpio;
use crate::layer::{Compression, MAX_WINDOW_LOG, detect};

/// One entry of an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// Path without a leading slash; the root is `.`.
    pub path: Vec<u8>,
    /// The header.
    pub header: cpio::Header,
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
}

/// Lists an initramfs: plain, gzip, zstd or LZ4, detected by its first bytes. Of a compressed one, the first segment
/// is listed.
pub fn list<'a>(
    reader: impl Read + 'a,
) -> io::Result<impl Iterator<Item = io::Result<ListedEntry>> + 'a> {
    let mut reader = cpio::Reader::new(decompress(reader)?);
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let entry = reader.next_entry().transpose()?;
        failed = entry.is_err();
        Some(entry.map(|(header, path, target)| ListedEntry {
            path,
            header,
            target,
        }))
    }))
}

/// The regular files of an initramfs for which `wanted` is true for their path, with their content. Files of more than
/// `max` bytes are left out.
pub(crate) fn read_files(
    reader: impl Read,
    max: u32,
    wanted: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut reader = cpio::Reader::new(decompress(reader)?);
    let mut files = Vec::new();
    let keep = |header: &cpio::Header, path: &[u8]| {
        header.mode & cpio::file_type::MASK == cpio::file_type::REGULAR
            && header.size <= max
            && wanted(path)
    };
    while let Some((_, path, data)) = reader.next_with(keep)? {
        files.extend(data.map(|data| (path, data)));
    }
    Ok(files)
}

/// Removes the compression.
pub(crate) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(256 << 10, reader);
    let start = input.fill_buf()?;
    if start.starts_with(&lz4::MAGIC) {
        input.consume(lz4::MAGIC.len());
        return Ok(Box::new(lz4::Decoder::new(input)));
    }
    Ok(match detect(start) {
        Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?.single_frame();
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(input),
    })
}
