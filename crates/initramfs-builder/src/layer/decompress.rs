//! Decompression on a thread of its own, counted against the budget.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use sha2::{Digest, Sha256};

use super::error::LayerError;
use crate::limits::{Budget, LimitExceeded};

/// Bytes in a chunk that goes from the decompressor to the parser.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Chunks on the way: with [`CHUNK_BYTES`], 1 MiB a layer.
pub(super) const CHUNKS: usize = 4;

/// The kernel refuses larger zstd windows (128 MiB, `ZSTD_WINDOWLOG_MAX` of lib/decompress_unzstd.c),
/// and so does the zstd library unless told otherwise. It bounds a decompressor's memory.
pub(crate) const MAX_WINDOW_LOG: u32 = 27;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Look at the first bytes.
    Detect,
    /// Not at all.
    Plain,
    /// gzip, of one member or several.
    Gzip,
    /// zstd, of one frame or several, with a window of at most 128 MiB.
    Zstd,
}

/// Counts what a decompressor takes.
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

/// A limit travels through a decompressor as the source of an I/O error; this takes it out again.
pub(super) fn read_error(error: io::Error) -> LayerError {
    let limit = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<LimitExceeded>());
    match limit {
        Some(limit) => LayerError::Limit(limit.clone()),
        None => LayerError::Read(error),
    }
}

/// Tells a compression by its first bytes (RFC 1952, RFC 8878).
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

/// One chunk, or why there are no more.
pub(super) type Message = Result<Vec<u8>, LayerError>;

/// Decompresses `reader` into chunks until it ends, a limit is passed, or nobody listens any more.
/// Emptied chunks come back through `empty` to be filled again.
pub(super) fn decompress(
    reader: impl Read,
    compression: Compression,
    budget: &Budget,
    full: &SyncSender<Message>,
    empty: &Receiver<Vec<u8>>,
) {
    if let Err(error) = run(reader, compression, budget, full, empty) {
        // Without a listener there is nobody to tell.
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

/// The parser's end: the decompressed bytes, hashed as they pass.
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

    /// The bytes at hand, waiting for some if there are none; empty at the end.
    pub fn fill(&mut self) -> Result<&[u8], LayerError> {
        if self.position == self.chunk.len() {
            let next = match self.full.recv() {
                Ok(next) => next?,
                // The decompressor is done.
                Err(_) => Vec::new(),
            };
            self.hash.update(&next);
            let old = std::mem::replace(&mut self.chunk, next);
            self.position = 0;
            if old.capacity() > 0 {
                // The decompressor may be gone already.
                let _ = self.empty.send(old);
            }
        }
        Ok(&self.chunk[self.position..])
    }

    /// Passes over bytes that [`Chunks::fill`] gave.
    pub fn consume(&mut self, count: usize) {
        self.position += count;
    }

    /// Reads to the end and gives the digest of everything.
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
