//! The baseline without a VM: the same interpreter from the same image, as a process in a chroot on tmpfs.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use cloude_e2e::binaries;
use tempfile::TempDir;

/// A language's image, unpacked to tmpfs.
pub struct Bare {
    root: TempDir,
    env: Vec<(String, String)>,
}

impl Bare {
    pub fn new(language: &str) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let image = std::fs::File::open(binaries::image(language)).unwrap();
        let status = Command::new("cpio")
            .args(["--extract", "--make-directories", "--quiet"])
            .current_dir(root.path())
            .stdin(image)
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("cpio: {error}: run tools/setup"));
        assert!(status.success(), "cpio: {status}");
        let env = binaries::language(language).run.env;
        Bare {
            root,
            env: env.into_iter().collect(),
        }
    }

    /// Runs the command and returns its wall time in milliseconds.
    pub fn time(&self, command: &[&str]) -> f64 {
        let root = self.root.path().to_owned();
        let mut child = Command::new(command[0]);
        child
            .args(&command[1..])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // SAFETY: between fork and exec the closure makes two system calls and allocates at most a path. The
        // parent has no other thread that could hold the allocator's lock.
        unsafe {
            child.pre_exec(move || {
                std::os::unix::fs::chroot(&root)?;
                std::env::set_current_dir("/")
            });
        }
        let start = Instant::now();
        let output = child.output().unwrap();
        let elapsed = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hello\n",
            "{command:?}"
        );
        elapsed
    }
}
