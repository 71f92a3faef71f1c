//! `umoci unpack`, the reference implementation for merging.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn digest(bytes: &[u8]) -> String {
    const_hex::encode(Sha256::digest(bytes))
}

/// Writes a blob into a layout and describes it.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    std::fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

/// Writes an image of these layers as an OCI layout (OCI image specification, image-layout.md) with
/// the tag `test`.
pub fn write_layout(layout: &Path, layers: &[Vec<u8>]) {
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| format!("sha256:{}", digest(layer)))
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string();
    let config = blob(
        layout,
        "application/vnd.oci.image.config.v1+json",
        config.as_bytes(),
    );
    let layer = |layer: &Vec<u8>| blob(layout, "application/vnd.oci.image.layer.v1.tar", layer);
    let layers: Vec<Value> = layers.iter().map(layer).collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let mut manifest = blob(
        layout,
        "application/vnd.oci.image.manifest.v1+json",
        manifest.as_bytes(),
    );
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "test" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    std::fs::write(layout.join("index.json"), index).unwrap();
}

/// Unpacks an image below a directory. Returns the root of its tree and umoci's output.
pub fn unpack(directory: &Path, layers: &[Vec<u8>]) -> (PathBuf, Output) {
    let layout = directory.join("layout");
    write_layout(&layout, layers);
    let bundle = directory.join("bundle");
    let image = format!("{}:test", layout.display());
    let output = Command::new("umoci")
        .args(["unpack", "--image", &image])
        .arg(&bundle)
        .output()
        .unwrap();
    (bundle.join("rootfs"), output)
}
