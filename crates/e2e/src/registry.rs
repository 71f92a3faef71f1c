//! `docker-registry` on a loopback port, with basic authentication.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::host;

/// The only user.
pub const USER: &str = "cloude";
/// The user's password.
pub const PASSWORD: &str = "secret";
/// The output of `htpasswd -Bbn cloude secret`: the registry accepts only bcrypt.
const HTPASSWD: &str = "cloude:$2y$05$CVI01AxC08Mxs03aZe2EMOlWm9JzGd0IO7UeGA/IR3Na0KPjclLyu\n";

/// A running `docker-registry`. Dropping it kills the process.
pub struct Registry {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Registry {
    /// Starts the registry and waits until it accepts connections.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cloude-registry-")
            .tempdir()
            .unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let root = folder.path().to_owned();
        let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
        std::fs::write(path("htpasswd"), HTPASSWD).unwrap();
        std::fs::create_dir(path("docker")).unwrap();
        // base64 of USER:PASSWORD, as `docker login` writes it.
        let login = format!(r#"{{"auths":{{"{address}":{{"auth":"Y2xvdWRlOnNlY3JldA=="}}}}}}"#);
        std::fs::write(folder.path().join("docker/config.json"), login).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \"{}\"}}}}\n\
             http: {{addr: \"{address}\"}}\nauth: {{htpasswd: {{realm: test, path: \"{}\"}}}}\n",
            path("data"),
            path("htpasswd")
        );
        std::fs::write(path("config.yml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}: run tools/setup"));
        let mut registry = Registry {
            child,
            address,
            folder,
        };
        host::wait_for("the registry answers", || {
            let ended = registry.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "docker-registry ended with {ended:?}: {}",
                std::fs::read_to_string(path("log")).unwrap_or_default()
            );
            std::net::TcpStream::connect(&registry.address).ok()
        });
        registry
    }

    /// `HOST:PORT` of the registry.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A folder for `DOCKER_CONFIG` whose `config.json` has the credentials.
    pub fn docker_config(&self) -> std::path::PathBuf {
        self.folder.path().join("docker")
    }

    /// Pushes a tag of an OCI layout as `name:tag` and returns the full reference.
    pub fn push(&self, layout: &Path, tag: &str, name: &str) -> String {
        let reference = format!("{}/{name}:{tag}", self.address);
        let credentials = format!("{USER}:{PASSWORD}");
        let source = format!("oci:{}:{tag}", layout.display());
        let target = format!("docker://{reference}");
        let arguments = [
            "copy",
            "--quiet",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--dest-creds",
            &credentials,
            &source,
            &target,
        ];
        host::run("skopeo", &arguments);
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
