//! Sizes of the segments of an ELF file (elf(5)).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// `PT_LOAD` and `PF_W` (elf(5)).
const LOAD: u32 = 1;
const WRITABLE: u32 = 2;

/// `p_memsz` of the largest writable PT_LOAD segment of a 64-bit ELF file: its static data. None for other files.
pub fn largest_data_segment(path: &Path) -> Option<u64> {
    const HEADER_BYTES: u64 = 56;
    let file = File::open(path).ok()?;
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).ok()?;
    // Magic, 64 bits, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") || u64::from(u16_at(&head, 54)) != HEADER_BYTES {
        return None;
    }
    let first = u64_at(&head, 32);
    let mut largest = None;
    for index in 0..u64::from(u16_at(&head, 56)) {
        let mut segment = [0; HEADER_BYTES as usize];
        let at = first.checked_add(index * HEADER_BYTES)?;
        file.read_exact_at(&mut segment, at).ok()?;
        if u32_at(&segment, 0) == LOAD && u32_at(&segment, 4) & WRITABLE != 0 {
            largest = largest.max(Some(u64_at(&segment, 40)));
        }
    }
    largest
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_programs_data_segment_is_found() {
        let bytes = largest_data_segment(Path::new("/proc/self/exe")).unwrap();
        assert!(bytes > 0 && bytes < 1 << 30, "{bytes}");
    }

    #[test]
    fn a_script_has_no_segments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        std::fs::write(&path, "#!/bin/sh\n".repeat(20)).unwrap();
        assert_eq!(largest_data_segment(&path), None);
    }

    #[test]
    fn a_header_that_points_past_the_file_is_no_segment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broken");
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        bytes.truncate(64);
        bytes[32..40].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(largest_data_segment(&path), None);
    }
}
