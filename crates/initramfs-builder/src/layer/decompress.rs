//! Decompression on another thread, counted against the limits.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use sha2::{Digest, Sha256};

use super::error::LayerError;
use crate::limits::{Budget, LimitExceeded};

/// Bytes of a chunk, the unit between decompressor and parser.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Chunks in the channel: 1 MiB per layer.
pub(super) const CHUNKS: usize = 4;

/// Largest zstd window, 128 MiB: the bound of the kernel (`ZSTD_WINDOWLOG_MAX`, lib/decompress_unzstd.c) and the
/// default of the zstd library. It bounds a decompressor's memory.
pub(crate) const MAX_WINDOW_LOG: u32 = 27;

/// Compression of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Detected by the first bytes.
    Detect,
    /// None.
    Plain,
    /// gzip, of one member or several.
    Gzip,
    /// zstd, of one frame or several, with a window of at most 128 MiB.
    Zstd,
}

/// Counts the bytes that a decompressor reads.
struct Counted<R> {
    inner: R,
    budget: Budget,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.budget
            .take_compressed(count as u64)
            .map_err(io::Error::other)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

/// Unwraps a [`LimitExceeded`] that passed through a decompressor inside of an I/O error.
pub(super) fn read_error(error: io::Error) -> LayerError {
    let limit = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<LimitExceeded>());
    match limit {
        Some(limit) => LayerError::Limit(limit.clone()),
        None => LayerError::Read(error),
    }
}

/// Detects the compression by the first bytes (RFC 1952, RFC 8878).
pub(crate) fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A zstd frame, or a skippable frame before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::Plain,
    }
}

fn decoder<'a, R: Read + 'a>(
    mut input: BufReader<R>,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'a>> {
    let compression = match compression {
        Compression::Detect => detect(input.fill_buf()?),
        known => known,
    };
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Plain | Compression::Detect => Box::new(input),
    })
}

/// One chunk, or the error that ends the stream.
pub(super) type Message = Result<Vec<u8>, LayerError>;

/// Decompresses `reader` into chunks until it ends, a limit is exceeded, or the receiver is dropped. Consumed chunks
/// return through `empty` and are reused.
pub(super) fn decompress(
    reader: impl Read,
    compression: Compression,
    budget: &Budget,
    full: &SyncSender<Message>,
    empty: &Receiver<Vec<u8>>,
) {
    if let Err(error) = run(reader, compression, budget, full, empty) {
        // Fails if the receiver was dropped.
        let _ = full.send(Err(error));
    }
}

fn run(
    reader: impl Read,
    compression: Compression,
    budget: &Budget,
    full: &SyncSender<Message>,
    empty: &Receiver<Vec<u8>>,
) -> Result<(), LayerError> {
    let taken = Rc::new(Cell::new(0));
    let counted = Counted {
        inner: reader,
        budget: budget.clone(),
        taken: taken.clone(),
    };
    let input = BufReader::with_capacity(CHUNK_BYTES, counted);
    let mut decoder = decoder(input, compression).map_err(read_error)?;
    let mut given = 0u64;
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.reserve_exact(CHUNK_BYTES);
        let count = (&mut decoder)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)
            .map_err(read_error)?;
        if count == 0 {
            return Ok(());
        }
        given += count as u64;
        budget.take_unpacked(count as u64)?;
        budget.check_ratio(taken.get(), given)?;
        if full.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

/// The receiving end: the decompressed bytes, hashed as they are read.
pub(super) struct Chunks {
    full: Receiver<Message>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    hash: Sha256,
}

impl Chunks {
    pub fn new(full: Receiver<Message>, empty: Sender<Vec<u8>>) -> Self {
        Chunks {
            full,
            empty,
            chunk: Vec::new(),
            position: 0,
            hash: Sha256::new(),
        }
    }

    /// The unread bytes of the current chunk. Blocks until the next chunk arrives; empty at the end of the layer.
    pub fn fill(&mut self) -> Result<&[u8], LayerError> {
        if self.position == self.chunk.len() {
            let next = match self.full.recv() {
                Ok(next) => next?,
                // The decompressor has ended.
                Err(_) => Vec::new(),
            };
            self.hash.update(&next);
            let old = std::mem::replace(&mut self.chunk, next);
            self.position = 0;
            if old.capacity() > 0 {
                // Fails if the decompressor has ended.
                let _ = self.empty.send(old);
            }
        }
        Ok(&self.chunk[self.position..])
    }

    /// Consumes bytes of [`Chunks::fill`].
    pub fn consume(&mut self, count: usize) {
        self.position += count;
    }

    /// Reads to the end. Returns the digest of all bytes.
    pub fn finish(mut self) -> Result<String, LayerError> {
        loop {
            let count = self.fill()?.len();
            if count == 0 {
                break;
            }
            self.consume(count);
        }
        Ok(format!(
            "sha256:{}",
            const_hex::encode(self.hash.finalize())
        ))
    }
}
