//! Files of a directory, or of a tar by its index, without unpacking it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use super::error::ArchiveError;

/// Entries of an archive. Images have at most 128 layers with three entries each.
const MAX_ENTRIES: usize = 10_000;
/// Links between layers of `docker save` that are followed.
const MAX_LINKS: usize = 8;

/// A directory or a tar.
pub(super) struct Files {
    pub path: PathBuf,
    /// The entries of a tar, by name.
    index: Option<HashMap<String, Entry>>,
}

enum Entry {
    /// Offset and size of the data.
    File(u64, u64),
    /// Path of another entry, from the root.
    Link(String),
}

/// One file, as a reader.
#[derive(Debug)]
pub(super) struct Part {
    reader: Take<File>,
    pub size: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Files {
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let index = if path.is_dir() {
            None
        } else {
            Some(index(path)?)
        };
        Ok(Files {
            path: path.to_owned(),
            index,
        })
    }

    pub fn is_tar(&self) -> bool {
        self.index.is_some()
    }

    pub fn has(&self, name: &str) -> bool {
        match &self.index {
            Some(index) => index.contains_key(name),
            None => self.path.join(name).is_file(),
        }
    }

    /// Opens a file. `name` must be checked: it is joined to the directory.
    pub fn part(&self, name: &str, kind: &'static str) -> Result<Part, ArchiveError> {
        let missing = || ArchiveError::Missing {
            path: self.path.clone(),
            missing: name.to_owned(),
            kind,
        };
        let Some(index) = &self.index else {
            let path = self.path.join(name);
            if !path.is_file() {
                return Err(missing());
            }
            let file = open_file(&path)?;
            let size = file.metadata().map_err(|source| self.io(source))?.len();
            return Ok(Part {
                reader: file.take(size),
                size,
            });
        };
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match index.get(name) {
                Some(Entry::File(offset, size)) => {
                    let mut file = open_file(&self.path)?;
                    file.seek(SeekFrom::Start(*offset))
                        .map_err(|source| self.io(source))?;
                    return Ok(Part {
                        reader: file.take(*size),
                        size: *size,
                    });
                }
                Some(Entry::Link(target)) => name = target,
                None => break,
            }
        }
        Err(missing())
    }

    pub fn io(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn index(path: &Path) -> Result<HashMap<String, Entry>, ArchiveError> {
    let io = |source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = open_file(path)?;
    let mut magic = [0; 4];
    let read = file.read(&mut magic).map_err(io)?;
    // RFC 1952; RFC 8878.
    if magic[..read].starts_with(&[0x1f, 0x8b]) || magic[..read] == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(ArchiveError::Compressed(path.to_owned()));
    }
    file.rewind().map_err(io)?;
    let mut index = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./").to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            index.insert(name, Entry::File(entry.raw_file_position(), entry.size()));
        } else if let (true, Some(target)) = (
            kind.is_symlink() || kind.is_hard_link(),
            entry.link_name_bytes(),
        ) {
            let target = String::from_utf8_lossy(&target).into_owned();
            let target = if kind.is_symlink() {
                resolve(&name, &target)
            } else {
                target
            };
            index.insert(name, Entry::Link(target));
        }
        if index.len() > MAX_ENTRIES {
            return Err(io(io::Error::other(format!(
                "more than {MAX_ENTRIES} entries"
            ))));
        }
    }
    Ok(index)
}

/// Opens a file. An error has its path.
fn open_file(path: &Path) -> Result<File, ArchiveError> {
    File::open(path).map_err(|source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    })
}

/// A symlink's target, from the root of the archive. It is looked up in the index only.
fn resolve(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_between_layers_is_resolved_in_the_archive() {
        assert_eq!(resolve("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(resolve("a", "../../../etc/passwd"), "etc/passwd");
    }

    #[test]
    fn a_compressed_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(matches!(
            Files::open(&path),
            Err(ArchiveError::Compressed(_))
        ));
    }
}
