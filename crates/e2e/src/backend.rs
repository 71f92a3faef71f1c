//! A `clouded` process for one test: separate port, state directory, network namespace and log.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{binaries, host};

/// `network.bridge`. All tests use one name, because each runs in a separate network namespace.
pub const BRIDGE: &str = "cloude-e2e";
/// The address of [`BRIDGE`].
pub const BRIDGE_ADDRESS: &str = "172.31.7.1";
const RANGE: &str = "172.31.7.0/24";

/// A running `clouded` with a free port and a temporary state directory. Dropping it kills the process.
pub struct Backend {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Backend {
    /// Starts `clouded` and waits until `GET /health` answers 200.
    ///
    /// `overrides` are lines of TOML without section headers, such as `vm.max_concurrent = 16`. They replace or
    /// extend the test configuration.
    pub fn start(overrides: &str) -> Self {
        binaries::require_kvm();
        host::isolate();
        let folder = tempfile::Builder::new()
            .prefix("cloude-e2e-")
            .tempdir()
            .unwrap();
        // A server that gives up root's rights goes through it.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        std::fs::write(
            folder.path().join("clouded.toml"),
            configuration(address, folder.path(), overrides),
        )
        .unwrap();
        let child = spawn(folder.path());
        let mut backend = Backend {
            address,
            child,
            folder,
        };
        backend.wait_until_healthy();
        backend
    }

    /// The base URL, such as `http://127.0.0.1:40001`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `clouded`'s process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard output and standard error since the first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends SIGKILL, so that `clouded` cannot clean up, and waits for the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts `clouded` again on the same state directory and waits until it is healthy.
    pub fn restart(&mut self) {
        self.child = spawn(self.folder.path());
        self.wait_until_healthy();
    }

    /// Stops `clouded` with SIGTERM, as a service manager does. Panics if it fails or leaves processes, network
    /// devices, nftables rules or temporary files.
    pub fn stop(mut self) {
        // SAFETY: takes no pointers; the child was not waited for, so that its process id was not reused.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = host::wait_for("clouded ends after SIGTERM", || {
            self.child.try_wait().unwrap()
        });
        assert!(
            status.success(),
            "clouded ended with {status}:\n{}",
            self.log()
        );
        host::assert_nothing_left(&self.folder.path().join("tmp"));
    }

    fn wait_until_healthy(&mut self) {
        host::wait_for("clouded answers GET /health", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("clouded ended with {status}:\n{}", self.log());
            }
            crate::curl::get(&format!("{}/health", self.url()))
                .filter(|answer| answer.status == 200)
        });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("clouded's log:\n{}", self.log());
        }
    }
}

fn spawn(folder: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = Command::new(binaries::binary("clouded"));
    command
        .arg("--config")
        .arg(folder.join("clouded.toml"))
        .env("TMPDIR", folder.join("tmp"))
        .env("RUST_LOG", "info,cloude_backend=debug,cloude_engine=debug");
    for name in [
        "BACKEND_SERVER_ADDR",
        "BRIDGE_NAME",
        "IP_RANGE",
        "IP_MASK",
        "VM_KERNEL_PATH",
        "VM_INITRAMFS_DIR",
        "CLOUDE_STATE_DIR",
        "CLOUDE_AGENT_BINARY",
    ] {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn configuration(address: SocketAddr, folder: &Path, overrides: &str) -> String {
    let path = |path: PathBuf| toml::Value::String(path.to_str().unwrap().to_owned());
    // Dotted keys instead of sections: an override can then replace a key by its full name.
    let mut keys = vec![
        ("listen".to_owned(), format!("\"{address}\"")),
        (
            "state_dir".to_owned(),
            path(folder.join("state")).to_string(),
        ),
        (
            "languages".to_owned(),
            path(binaries::languages()).to_string(),
        ),
        ("kernel".to_owned(), path(binaries::kernel()).to_string()),
        (
            "images.dir".to_owned(),
            path(binaries::images()).to_string(),
        ),
        ("images.auto_build".to_owned(), "false".to_owned()),
        (
            "agent.binary".to_owned(),
            path(binaries::agent()).to_string(),
        ),
        (
            "vm.worker".to_owned(),
            path(binaries::binary("cloude-vmm")).to_string(),
        ),
        ("network.bridge".to_owned(), format!("\"{BRIDGE}\"")),
        ("network.range".to_owned(), format!("\"{RANGE}\"")),
    ];
    for line in overrides.lines().filter(|line| !line.trim().is_empty()) {
        let (key, value) = line
            .split_once('=')
            .unwrap_or_else(|| panic!("{line:?} is not KEY = VALUE"));
        keys.retain(|(known, _)| known != key.trim());
        keys.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    keys.iter()
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect()
}
