//! Builds OCI images for tests, layer by layer.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The base of all mtimes in these images: 2024-01-02 03:04:05 UTC.
pub const TIME: u64 = 1_704_164_645;

/// One layer: a tar archive under construction.
pub struct Layer {
    builder: Builder<Vec<u8>>,
    time: u64,
}

impl Default for Layer {
    fn default() -> Self {
        Layer {
            builder: Builder::new(Vec::new()),
            time: TIME,
        }
    }
}

impl Layer {
    /// Adds a directory.
    pub fn directory(self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        self.entry(
            EntryType::Directory,
            &format!("{path}/"),
            mode,
            owner,
            &[],
            None,
        )
    }

    /// Adds a regular file.
    pub fn file(self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, mode, owner, content, None)
    }

    /// Adds a regular file whose name is written as it is, also with `..` in it. At most 100 bytes.
    pub fn file_with_raw_name(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(self.time);
        header.set_cksum();
        self.builder.append(&header, content).unwrap();
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, 0o777, (0, 0), &[], Some(target))
    }

    /// Adds a hard link to an entry of this layer or of a lower one.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, 0o644, (0, 0), &[], Some(target))
    }

    /// Adds a named pipe.
    pub fn fifo(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Fifo, path, mode, (0, 0), &[], None)
    }

    /// Adds a whiteout, `.wh.NAME`: removes an entry of the lower layers.
    pub fn whiteout(self, folder: &str, name: &str) -> Self {
        self.file(&format!("{folder}/.wh.{name}"), 0o644, (0, 0), &[])
    }

    /// Adds an opaque whiteout, `.wh..wh..opq`: hides the lower layers' entries of a directory.
    pub fn opaque(self, folder: &str) -> Self {
        self.file(&format!("{folder}/.wh..wh..opq"), 0o644, (0, 0), &[])
    }

    fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        mode: u32,
        owner: (u64, u64),
        content: &[u8],
        link: Option<&str>,
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(content.len() as u64);
        // Distinct mtimes, so that a comparison detects the mtime of a wrong entry.
        self.time += 1;
        header.set_mtime(self.time);
        match link {
            Some(target) => self.builder.append_link(&mut header, path, target).unwrap(),
            None => self
                .builder
                .append_data(&mut header, path, content)
                .unwrap(),
        }
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

/// Writes an OCI image layout with one image, made of these layers compressed with gzip, and one tag.
pub fn write_layout(folder: &Path, tag: &str, layers: Vec<Layer>) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    std::fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let mut descriptors = Vec::new();
    let mut identifiers = Vec::new();
    for layer in layers {
        let plain = layer.bytes();
        identifiers.push(digest(&plain));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain).unwrap();
        descriptors.push(blob(
            folder,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &encoder.finish().unwrap(),
        ));
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "GREETING=hello"], "WorkingDir": "/srv", "User": "1234:99", "Cmd": ["/lister", "/"]},
        "rootfs": {"type": "layers", "diff_ids": identifiers},
    });
    let config = blob(
        folder,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": descriptors});
    let mut manifest = blob(folder, media_type, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    std::fs::write(
        folder.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
    )
    .unwrap();
}

fn blob(folder: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    std::fs::write(folder.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
