//! A second open file description for the same file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Opens the same file again, for reading from its start. A descriptor made with dup(2) shares its position,
/// so two workers that read at once would each miss what the other one read.
pub fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_reopened_file_is_read_from_its_start() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();

        let mut text = String::new();
        reopen(&file).unwrap().read_to_string(&mut text).unwrap();

        assert_eq!(text, "text");
    }
}
