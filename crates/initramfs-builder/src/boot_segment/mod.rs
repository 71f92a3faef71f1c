//! The boot segments of an initramfs: the agent and the kernel's modules, and one VM's configuration.
//!
//! The kernel unpacks any number of concatenated segments, each aligned to 4 bytes. Make one with the agent and the
//! modules per kernel, and a tiny one with the configuration per VM:
//!
//! ```no_run
//! # use cloude_initramfs_builder::boot_segment::{BootSegment, BootSegmentError};
//! # fn make(config: &cloude_protocol::boot::BootConfig) -> Result<(), BootSegmentError> {
//! let shared = BootSegment::new()
//!     .agent_file("target/agent/cloude-agent".as_ref())?
//!     .kernel("/var/cache/cloude/kernels/stock".as_ref())?
//!     .to_memfd()?;
//! let own = BootSegment::new().boot_config(config)?.to_memfd()?;
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use cloude_protocol::boot::{self, BootConfig};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::cpio::{Header, Writer, file_type};

/// Zeros before the archive. An LZ4 image before it has no end mark: a block size of 0 ends it
/// (lib/decompress_unlz4.c). The kernel skips zeros between segments (init/initramfs.c).
const LEADING_ZEROS: [u8; 4] = [0; 4];

/// A boot segment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootSegmentError {
    /// The agent or a module could not be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// `modules.list` contains a path instead of a file name. Fetch or build the kernel again.
    #[error("`{list}` contains `{name}` instead of a file name; fetch or build the kernel again")]
    ModuleName {
        /// The list.
        list: PathBuf,
        /// The line.
        name: String,
    },
    /// A file is larger than newc can hold.
    #[error("`{path}` has {size} bytes, and an initramfs holds files of up to 4294967295 bytes")]
    Size {
        /// The file, in the segment.
        path: String,
        /// Its bytes.
        size: usize,
    },
    /// The memfd could not be made, written or sealed.
    #[error("cannot make the boot segment: {0}")]
    Write(#[source] io::Error),
}

/// The files of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootSegment {
    /// By path in the guest, without the leading slash, in the order of the archive.
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl BootSegment {
    /// An empty segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the agent from a file.
    pub fn agent_file(self, path: &Path) -> Result<Self, BootSegmentError> {
        self.agent(read(path)?)
    }

    /// Adds the agent.
    pub fn agent(self, bytes: Vec<u8>) -> Result<Self, BootSegmentError> {
        self.file(boot::AGENT, 0o700, bytes)
    }

    /// Adds the modules of a kernel directory (`modules/modules.list`). A path to a kernel file has no modules.
    pub fn kernel(mut self, path: &Path) -> Result<Self, BootSegmentError> {
        if !path.is_dir() {
            // A missing kernel is reported when it is opened to boot.
            return Ok(self);
        }
        let modules = path.join("modules");
        let list = modules.join("modules.list");
        let lines = read(&list)?;
        for name in String::from_utf8_lossy(&lines)
            .lines()
            .filter(|line| !line.is_empty())
        {
            if name.contains('/') || name.contains('\0') || matches!(name, "." | "..") {
                return Err(BootSegmentError::ModuleName {
                    list,
                    name: name.to_owned(),
                });
            }
            let bytes = read(&modules.join(name))?;
            self = self.file(&format!("{}/{name}", boot::MODULES_DIR), 0o600, bytes)?;
        }
        self.file(boot::MODULES_LIST, 0o600, lines)
    }

    /// Adds one VM's configuration with mode 0600: it contains the VM's token.
    pub fn boot_config(self, config: &BootConfig) -> Result<Self, BootSegmentError> {
        let json =
            serde_json::to_vec(config).map_err(|error| BootSegmentError::Write(error.into()))?;
        self.file(boot::BOOT_CONFIG, 0o600, json)
    }

    fn file(mut self, path: &str, mode: u32, bytes: Vec<u8>) -> Result<Self, BootSegmentError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(BootSegmentError::Size {
                path: path.to_owned(),
                size: bytes.len(),
            });
        }
        self.files
            .insert(path.trim_start_matches('/').to_owned(), (mode, bytes));
        Ok(self)
    }

    /// The segment as bytes; the length is a multiple of 4.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        if self.write(&mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// The segment in a sealed memfd, positioned at its start.
    pub fn to_memfd(&self) -> Result<File, BootSegmentError> {
        let make = || -> io::Result<File> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let mut file = File::from(rustix::fs::memfd_create("cloude-boot-segment", flags)?);
            self.write(io::BufWriter::with_capacity(64 << 10, &mut file))?;
            file.rewind()?;
            let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
            rustix::fs::fcntl_add_seals(&file, seals)?;
            Ok(file)
        };
        make().map_err(BootSegmentError::Write)
    }

    fn write(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&LEADING_ZEROS)?;
        let mut cpio = Writer::new(out);
        let mut ino = 0;
        let mut entry = |mode, nlink, size: usize| {
            ino += 1;
            Header {
                ino,
                mode,
                nlink,
                size: size as u32,
                ..Header::default()
            }
        };
        // Paths are sorted: the files of a directory are consecutive.
        let mut made = None;
        for (path, (mode, bytes)) in &self.files {
            for (slash, _) in path.match_indices('/') {
                let directory = &path[..slash];
                let is_made = made.is_some_and(|made: &str| {
                    made == directory || made.starts_with(&path[..=slash])
                });
                if !is_made {
                    cpio.header(
                        &entry(file_type::DIRECTORY | 0o700, 2, 0),
                        directory.as_bytes(),
                    )?;
                    made = Some(directory);
                }
            }
            cpio.header(
                &entry(file_type::REGULAR | mode, 1, bytes.len()),
                path.as_bytes(),
            )?;
            cpio.data(bytes)?;
            cpio.pad()?;
        }
        let (mut out, _) = cpio.finish()?;
        out.flush()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BootSegmentError> {
    std::fs::read(path).map_err(|source| BootSegmentError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
