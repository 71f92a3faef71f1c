//! A snapshot that forks are made of: its record, checked, and its memory, which no longer changes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::memory::{self, MemoryFileError};
use super::{Record, SnapshotError};

/// A snapshot, ready to be mapped. Clones share it.
#[derive(Clone, Debug)]
pub struct Template {
    record: Arc<Record>,
    memory: Arc<File>,
}

/// More than a record of eight vCPUs with full state and devices has.
const LONGEST_RECORD: u64 = 16 << 20;

impl Template {
    /// Of a record and its memory, a sealed memfd or a file of the same size that nobody writes to.
    /// The record is checked, the memory's size too, its content is not: see [`Template::verify_memory`].
    pub fn new(record: &[u8], memory: File) -> Result<Self, SnapshotError> {
        let record = Record::decode(record)?;
        let need = record.key.memory_mib << 20;
        let have = memory.metadata().map_err(MemoryFileError::Read)?.len();
        if have != need {
            return Err(MemoryFileError::Size { have, need }.into());
        }
        Ok(Self {
            record: Arc::new(record),
            memory: Arc::new(memory),
        })
    }

    /// Of a file, or memfd, with the record, and the memory.
    pub fn open(record: &File, memory: File) -> Result<Self, SnapshotError> {
        let read = SnapshotError::host("read the record");
        let len = record.metadata().map_err(&read)?.len().min(LONGEST_RECORD);
        let mut bytes = vec![0; len as usize];
        record.read_exact_at(&mut bytes, 0).map_err(&read)?;
        Self::new(&bytes, memory)
    }

    /// Reads all of the memory and compares it with the digest in the record: once for a file that was
    /// found on a disk, before anything is made of it. 1 GiB with data takes about a second.
    pub fn verify_memory(&self) -> Result<(), MemoryFileError> {
        if memory::memory_digest(&self.memory)? == self.record.memory_digest {
            Ok(())
        } else {
            Err(MemoryFileError::Damaged)
        }
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn shared_record(&self) -> Arc<Record> {
        Arc::clone(&self.record)
    }

    /// The memory.
    pub fn memory(&self) -> &File {
        &self.memory
    }
}
