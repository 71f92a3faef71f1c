//! Descriptions of open files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The same file, opened again for reading from its start. A duplicate would share its position with the
/// descriptor that it was made of, and workers that start at once would read each other's bytes away.
pub fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_reopened_file_has_a_position_of_its_own() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();
        let mut text = String::new();
        reopen(&file).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }
}
