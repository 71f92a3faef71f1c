use std::io::Read;

use super::*;
use crate::cpio::Reader;

fn config() -> BootConfig {
    BootConfig {
        token: "ab".repeat(32),
        hostname: "vm".to_owned(),
        network: None,
        copy_output_to_console: false,
        shell: false,
        template: false,
    }
}

fn entries(bytes: &[u8]) -> Vec<(String, u32, u32)> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some((header, name, _)) = reader.next_entry().unwrap() {
        entries.push((String::from_utf8(name).unwrap(), header.mode, header.size));
    }
    entries
}

/// A kernel folder with two modules.
fn kernel() -> tempfile::TempDir {
    let kernel = tempfile::tempdir().unwrap();
    let modules = kernel.path().join("modules");
    std::fs::create_dir(&modules).unwrap();
    std::fs::write(modules.join("modules.list"), "virtio.ko\nvirtio_net.ko\n").unwrap();
    std::fs::write(modules.join("virtio.ko"), "12345").unwrap();
    std::fs::write(modules.join("virtio_net.ko"), "123").unwrap();
    kernel
}

#[test]
fn holds_agent_modules_and_configuration_in_private_directories() {
    let kernel = kernel();
    let segment = BootSegment::new()
        .agent(b"agent".to_vec())
        .and_then(|segment| segment.kernel(kernel.path()))
        .and_then(|segment| segment.boot_config(&config()))
        .unwrap();
    let bytes = segment.to_bytes();
    assert_eq!(bytes.len() % 4, 0);
    assert_eq!(bytes[..4], [0; 4]);
    let json = serde_json::to_vec(&config()).unwrap().len() as u32;
    let expected = [
        (".cloude", 0o040_700, 0),
        (".cloude/agent", 0o100_700, 5),
        (".cloude/boot.json", 0o100_600, json),
        (".cloude/modules", 0o040_700, 0),
        (".cloude/modules/modules.list", 0o100_600, 24),
        (".cloude/modules/virtio.ko", 0o100_600, 5),
        (".cloude/modules/virtio_net.ko", 0o100_600, 3),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, mode, size)| ((*name).to_owned(), *mode, *size))
        .collect();
    assert_eq!(entries(&bytes), expected);
}

#[test]
fn the_memfd_has_the_same_bytes_and_is_sealed() {
    let segment = BootSegment::new().boot_config(&config()).unwrap();
    let mut file = segment.to_memfd().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, segment.to_bytes());
    assert!(file.write_all(b"x").is_err());
    assert!(file.set_len(0).is_err());
}

#[test]
fn a_bare_kernel_has_no_modules() {
    let kernel = tempfile::NamedTempFile::new().unwrap();
    let segment = BootSegment::new().kernel(kernel.path()).unwrap();
    assert_eq!(segment, BootSegment::new());
}

#[test]
fn a_list_that_leaves_the_folder_is_refused() {
    let kernel = kernel();
    std::fs::write(
        kernel.path().join("modules/modules.list"),
        "../../etc/passwd\n",
    )
    .unwrap();
    let error = BootSegment::new().kernel(kernel.path()).unwrap_err();
    assert!(
        matches!(error, BootSegmentError::ModuleName { .. }),
        "{error}"
    );
}

#[test]
fn a_module_that_is_missing_is_named() {
    let kernel = kernel();
    std::fs::remove_file(kernel.path().join("modules/virtio.ko")).unwrap();
    let error = BootSegment::new().kernel(kernel.path()).unwrap_err();
    assert!(error.to_string().contains("modules/virtio.ko"), "{error}");
}
