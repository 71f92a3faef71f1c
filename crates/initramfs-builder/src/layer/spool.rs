//! The unlinked temporary file with the file contents of a layer.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::Content;
use super::error::LayerError;

/// Smaller holes are written as zeros: a seek flushes the write buffer.
const MIN_HOLE: u64 = 64 << 10;

/// Appends contents. The file has no name, so that it disappears however the process ends.
pub(super) struct Spool {
    dir: PathBuf,
    file: Arc<File>,
    writer: BufWriter<Arc<File>>,
    position: u64,
}

impl Spool {
    pub fn new(dir: &Path) -> Result<Spool, LayerError> {
        let file = tempfile::tempfile_in(dir).map_err(|source| LayerError::Spool {
            dir: dir.to_owned(),
            source,
        })?;
        let file = Arc::new(file);
        let writer = BufWriter::with_capacity(256 << 10, file.clone());
        Ok(Spool {
            dir: dir.to_owned(),
            file,
            writer,
            position: 0,
        })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// The bytes since `start`.
    pub fn content(&self, start: u64) -> Content {
        Content::Spooled {
            file: self.file.clone(),
            offset: start,
            len: self.position - start,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.writer
            .write_all(bytes)
            .map_err(|source| self.error(source))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Appends zeros, as a hole if there are many.
    pub fn hole(&mut self, len: u64) -> Result<(), LayerError> {
        if len < MIN_HOLE {
            return self.write(&vec![0; len as usize]);
        }
        let offset =
            i64::try_from(len).map_err(|_| self.error(io::ErrorKind::FileTooLarge.into()))?;
        self.writer
            .seek(SeekFrom::Current(offset))
            .map_err(|source| self.error(source))?;
        self.position += len;
        Ok(())
    }

    /// Flushes the buffer.
    pub fn finish(mut self) -> Result<(), LayerError> {
        let result = self
            .writer
            .flush()
            .and_then(|()| self.file.set_len(self.position));
        result.map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> LayerError {
        LayerError::Spool {
            dir: self.dir.clone(),
            source,
        }
    }
}
