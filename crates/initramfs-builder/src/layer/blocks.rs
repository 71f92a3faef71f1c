//! The tar archive as blocks of 512 bytes.

use super::decompress::Chunks;
use super::error::LayerError;
use super::number;
use crate::limits::LimitExceeded;

pub(super) const BLOCK: usize = 512;

/// A problem of an entry, as text. The parser adds the entry's number and path.
pub(super) enum Problem {
    Text(String),
    Layer(LayerError),
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Text(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::Text(text.to_owned())
    }
}

impl From<LayerError> for Problem {
    fn from(error: LayerError) -> Self {
        Problem::Layer(error)
    }
}

impl From<LimitExceeded> for Problem {
    fn from(error: LimitExceeded) -> Self {
        Problem::Layer(error.into())
    }
}

pub(super) fn truncated() -> Problem {
    "the layer ends in the middle of it".into()
}

/// Bytes from the end of data to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// One block.
pub(super) type Block = [u8; BLOCK];

/// Reads the blocks of a decompressed layer.
pub(super) struct Blocks {
    chunks: Chunks,
}

impl Blocks {
    pub fn new(chunks: Chunks) -> Self {
        Blocks { chunks }
    }

    /// The next header; none at the end of the archive, which is two blocks of zeros or the end of the input.
    pub fn header(&mut self) -> Result<Option<Block>, Problem> {
        if self.chunks.fill()?.is_empty() {
            return Ok(None);
        }
        let block = self.block()?;
        if block == [0; BLOCK] {
            if self.chunks.fill()?.is_empty() || self.block()? == [0; BLOCK] {
                return Ok(None);
            }
            return Err("a single block of zeros stands between entries".into());
        }
        // The sum of all bytes, with the checksum field as spaces. Some old tars summed signed bytes.
        let sum = |value: fn(u8) -> i64| -> i64 {
            let whole: i64 = block.iter().map(|byte| value(*byte)).sum();
            let field: i64 = block[148..156].iter().map(|byte| value(*byte)).sum();
            whole - field + 8 * i64::from(b' ')
        };
        let expected = number::field(&block[148..156]);
        if expected != Some(sum(i64::from)) && expected != Some(sum(|byte| i64::from(byte as i8))) {
            return Err(
                "the checksum of its header is wrong: the layer is damaged, or not a tar archive"
                    .into(),
            );
        }
        Ok(Some(block))
    }

    /// The next block.
    pub fn block(&mut self) -> Result<Block, Problem> {
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok(block)
    }

    pub fn read_exact(&mut self, mut into: &mut [u8]) -> Result<(), Problem> {
        while !into.is_empty() {
            let bytes = self.chunks.fill()?;
            if bytes.is_empty() {
                return Err(truncated());
            }
            let count = bytes.len().min(into.len());
            into[..count].copy_from_slice(&bytes[..count]);
            self.chunks.consume(count);
            into = &mut into[count..];
        }
        Ok(())
    }

    pub fn skip(&mut self, mut count: u64) -> Result<(), Problem> {
        while count > 0 {
            let available = self.chunks.fill()?.len();
            if available == 0 {
                return Err(truncated());
            }
            let step = count.min(available as u64);
            self.chunks.consume(step as usize);
            count -= step;
        }
        Ok(())
    }

    /// Skips the padding after a file's data, which may be missing at the end of the layer: `umoci insert --opaque`
    /// writes such archives, and Docker reads them.
    pub fn skip_last_padding(&mut self, size: u64) -> Result<(), Problem> {
        if self.chunks.fill()?.is_empty() {
            return Ok(());
        }
        self.skip(padding(size))
    }

    /// Passes the next `count` bytes to `write`, in pieces.
    pub fn copy(
        &mut self,
        mut count: u64,
        mut write: impl FnMut(&[u8]) -> Result<(), LayerError>,
    ) -> Result<(), Problem> {
        while count > 0 {
            let bytes = self.chunks.fill()?;
            if bytes.is_empty() {
                return Err(truncated());
            }
            let step = count.min(bytes.len() as u64) as usize;
            write(&bytes[..step])?;
            self.chunks.consume(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// Reads the rest of the input. Returns the digest of all of it.
    pub fn finish(self) -> Result<String, LayerError> {
        self.chunks.finish()
    }
}
