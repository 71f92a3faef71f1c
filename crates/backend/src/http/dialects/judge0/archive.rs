//! The zip archive of `additional_files`.

use std::collections::HashSet;
use std::io::{Cursor, Read};

use cloude_protocol::Data;
use cloude_protocol::agent::File;
use zip::ZipArchive;

/// The signature of an entry of an archive's directory (APPNOTE 4.3.12).
const ENTRY: &[u8] = b"PK\x01\x02";
/// The most entries. An entry of 46 bytes takes several hundred in memory when it is read.
const MAX_ENTRIES: usize = 10_000;

/// The files of an archive, without a second one of the same path, and without `source`, the path of the program: unzip(1)
/// overwrites neither in Judge0. `limit`: bytes of all files together.
pub fn files(archive: &Data, source: &str, limit: usize) -> Result<Vec<File>, String> {
    let invalid = |error: zip::result::ZipError| format!("is not a zip archive: {error}");
    let entries = archive.0.windows(ENTRY.len());
    if entries.filter(|bytes| *bytes == ENTRY).count() > MAX_ENTRIES {
        return Err(format!("has more than {MAX_ENTRIES} entries"));
    }
    let mut archive = ZipArchive::new(Cursor::new(&archive.0)).map_err(invalid)?;
    let mut left = limit;
    let mut seen = HashSet::from([source.to_owned()]);
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(invalid)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().trim_start_matches("./").to_owned();
        if entry.is_symlink() {
            return Err(format!("has a symbolic link: `{name}`"));
        }
        if !seen.insert(name.clone()) {
            continue;
        }
        let mut content = Vec::new();
        // The size that the archive states may be wrong.
        let mut data = entry.by_ref().take(left as u64 + 1);
        data.read_to_end(&mut content)
            .map_err(|error| format!("has a damaged file `{name}`: {error}"))?;
        left = left
            .checked_sub(content.len())
            .ok_or_else(|| format!("has files of more than {limit} bytes"))?;
        files.push(File {
            path: name,
            content: content.into(),
            mode: entry
                .unix_mode()
                .map(|mode| mode & 0o777)
                .filter(|mode| *mode > 0),
        });
    }
    Ok(files)
}
