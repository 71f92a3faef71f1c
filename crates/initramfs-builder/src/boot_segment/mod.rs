//! The small second segment of an initramfs: the agent, the kernel's modules, one VM's configuration.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cloude_protocol::boot::BootConfig;

/// Why a boot segment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootSegmentError {
    /// A file of it could not be read.
    #[error("reading `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `modules.list` names a file with a slash or nothing in it.
    #[error("`{list}` names `{name}`, which is no file name; fetch or build the kernel again")]
    ModuleName {
        /// The list.
        list: PathBuf,
        /// The line.
        name: String,
    },
    /// The memory for it could not be had.
    #[error("making the boot segment: {0}")]
    Write(#[source] io::Error),
}

/// What goes into one segment. Make one with the agent and the modules per kernel, and a tiny one
/// with the configuration per VM: the kernel takes any number of segments, one behind the other.
#[derive(Debug, Default)]
pub struct BootSegment {
    agent: Option<Vec<u8>>,
}

impl BootSegment {
    /// An empty segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the agent from a file.
    pub fn agent_file(self, path: &Path) -> Result<Self, BootSegmentError> {
        let bytes = std::fs::read(path)
            .map_err(|source| BootSegmentError::Read { path: path.to_owned(), source })?;
        Ok(self.agent(bytes))
    }

    /// Adds the agent.
    pub fn agent(mut self, bytes: Vec<u8>) -> Self {
        self.agent = Some(bytes);
        self
    }

    /// Adds the modules of a kernel: a folder with `modules/modules.list`, or the path of a bare
    /// kernel, which has none.
    pub fn kernel(self, path: &Path) -> Result<Self, BootSegmentError> {
        let _ = path;
        unimplemented!("in the next commit")
    }

    /// Adds one VM's configuration.
    pub fn boot_config(self, config: &BootConfig) -> Self {
        let _ = config;
        unimplemented!("in the next commit")
    }

    /// The segment; its length is a multiple of 4.
    pub fn to_bytes(&self) -> Vec<u8> {
        unimplemented!("in the next commit")
    }

    /// The segment in a sealed memfd, at offset 0.
    pub fn to_memfd(&self) -> Result<File, BootSegmentError> {
        unimplemented!("in the next commit")
    }
}
