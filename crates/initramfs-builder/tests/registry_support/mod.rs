//! A real registry on loopback, images to put into it, and a proxy that breaks transfers.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const USER: &str = "someone";
pub const PASSWORD: &str = "secret";

/// A `docker-registry` process on a free port; killed when dropped.
pub struct Registry {
    process: Child,
    pub address: String,
    pub dir: TempDir,
}

impl Registry {
    pub fn start(with_password: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let root = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: \"{address}\"}}\n"
        );
        if with_password {
            let made = Command::new("htpasswd")
                .args(["-Bbn", USER, PASSWORD])
                .output()
                .unwrap();
            fs::write(dir.path().join("htpasswd"), made.stdout).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n");
        }
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need docker-registry: apt-get install docker-registry");
        let registry = Registry {
            process,
            address,
            dir,
        };
        let deadline = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Pushes an OCI layout to the registry.
    pub fn push(&self, layout: &Path, name: &str) {
        let target = format!("docker://{}/{name}", self.address);
        let source = format!("oci:{}", layout.display());
        let credentials = format!("{USER}:{PASSWORD}");
        let arguments = [
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--dest-creds",
            &credentials,
        ];
        let output = Command::new("skopeo")
            .args(arguments)
            .args([source, target])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The file in which the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = "data/docker/registry/v2/blobs/sha256";
        self.dir
            .path()
            .join(blobs)
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Compression of a layer.
#[derive(Clone, Copy)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Compression of a layer, and its files by name.
pub type Layer<'a> = (Packing, &'a [(&'a str, &'a [u8])]);

/// An OCI layout of one image, or of several for different architectures.
pub struct Layout {
    pub dir: TempDir,
    pub layers: Vec<String>,
    manifests: Vec<serde_json::Value>,
}

impl Layout {
    /// An image for amd64 whose layers have these files.
    pub fn of(layers: &[Layer<'_>]) -> Self {
        let mut layout = Layout {
            dir: tempfile::tempdir().unwrap(),
            layers: Vec::new(),
            manifests: Vec::new(),
        };
        layout.add("amd64", layers);
        layout
    }

    /// Adds an image for another architecture.
    pub fn add(&mut self, architecture: &str, layers: &[Layer<'_>]) {
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        for (packing, files) in layers {
            let tar = tar_of(files);
            diff_ids.push(digest(&tar));
            let kind = "application/vnd.oci.image.layer.v1.tar";
            let (bytes, kind) = match packing {
                Packing::Plain => (tar, kind.to_owned()),
                Packing::Gzip => (gzip(&tar), format!("{kind}+gzip")),
                Packing::Zstd => (
                    zstd::encode_all(&tar[..], 3).unwrap(),
                    format!("{kind}+zstd"),
                ),
            };
            let (name, size) = self.blob(&bytes);
            self.layers.push(name.clone());
            descriptors.push(json!({"mediaType": kind, "digest": name, "size": size}));
        }
        let config = json!({
            "os": "linux", "architecture": architecture,
            "config": {"Env": ["WHO=test"], "User": "1000", "WorkingDir": "/w", "Cmd": ["/bin/x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let (config, size) = self.blob(config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size},
            "layers": descriptors,
        });
        let (manifest, size) = self.blob(manifest.to_string().as_bytes());
        self.manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest,
            "size": size, "platform": {"os": "linux", "architecture": architecture},
        }));
        self.write_index();
    }

    fn write_index(&self) {
        fs::write(
            self.dir.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        let kind = "application/vnd.oci.image.index.v1+json";
        let mut index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": self.manifests});
        if self.manifests.len() > 1 {
            let (digest, size) = self.blob(index.to_string().as_bytes());
            let inner = json!([{"mediaType": kind, "digest": digest, "size": size}]);
            index["manifests"] = inner;
        }
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    pub fn manifest_digest(&self) -> String {
        self.manifests[0]["digest"].as_str().unwrap().to_owned()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn blob(&self, bytes: &[u8]) -> (String, usize) {
        let digest = digest(bytes);
        let dir = self.dir.path().join("blobs/sha256");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(&digest[7..]), bytes).unwrap();
        (digest, bytes.len())
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that do not compress.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    next.take(count).collect()
}

/// `cloude-initramfs` with a private cache and docker configuration.
pub struct Tool {
    pub dir: TempDir,
}

impl Tool {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("docker")).unwrap();
        Tool { dir }
    }

    /// Stores a password in config.json, as `docker login` does.
    pub fn log_in(&self, registry: &str, auth_base64: &str) {
        let config = json!({"auths": {registry: {"auth": auth_base64}}});
        fs::write(
            self.dir.path().join("docker/config.json"),
            config.to_string(),
        )
        .unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloude-initramfs"));
        command
            .args(arguments)
            .env("CLOUDE_CACHE_DIR", self.cache());
        command.env("DOCKER_CONFIG", self.dir.path().join("docker"));
        for name in [
            "VM_INITRAMFS_DIR",
            "SOURCE_DATE_EPOCH",
            "http_proxy",
            "HTTP_PROXY",
        ] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Builds and returns the initramfs; panics if the build fails.
    pub fn build(&self, arguments: &[&str]) -> Vec<u8> {
        let out = self.dir.path().join("out.cpio");
        let mut all = vec!["build", "-o", out.to_str().unwrap()];
        all.extend(arguments);
        let output = self.run(&all);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        fs::read(out).unwrap()
    }

    /// Returns the error of a build that must fail with exit code 1.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["build"], arguments].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        stderr
    }
}

pub fn contains(archive: &[u8], text: &str) -> bool {
    archive
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// A proxy that counts requests for blobs, and breaks the first responses that are longer than a limit.
pub struct Proxy {
    pub address: String,
    pub blob_requests: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(registry: &str, breaks: i64, lets_through: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let blob_requests = Arc::new(AtomicUsize::new(0));
        let (counter, registry) = (blob_requests.clone(), registry.to_owned());
        let breaks = Arc::new(AtomicI64::new(breaks));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (counter, breaks, registry) =
                    (counter.clone(), breaks.clone(), registry.clone());
                std::thread::spawn(move || {
                    pass(client, &registry, &counter, &breaks, lets_through)
                });
            }
        });
        Proxy {
            address,
            blob_requests,
        }
    }
}

/// Serves one request per connection, so that each can be counted and broken.
fn pass(
    mut client: TcpStream,
    registry: &str,
    counter: &AtomicUsize,
    breaks: &AtomicI64,
    limit: usize,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    // A TLS ClientHello contains no blank line and is never answered.
    let head = String::from_utf8_lossy(&head).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let is_blob = head.contains("/blobs/");
    if is_blob {
        counter.fetch_add(1, Ordering::SeqCst);
    }
    let Ok(mut server) = TcpStream::connect(registry) else {
        return;
    };
    let _ = server.write_all(head.as_bytes());
    let mut sent = 0;
    let mut buffer = [0; 16384];
    while let Ok(read) = server.read(&mut buffer) {
        if read == 0 || client.write_all(&buffer[..read]).is_err() {
            return;
        }
        sent += read;
        if is_blob && sent > limit && breaks.fetch_sub(1, Ordering::SeqCst) > 0 {
            return;
        }
    }
}
