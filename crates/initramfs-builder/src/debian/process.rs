//! mmdebstrap as a child process whose standard output is read as the layer.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{DebianError, DebianOptions, FINISH, SETTLE, SETUP, package_names, quote, sources};
use crate::progress::{Cancel, Event, Progress};
use crate::source::Packages;

/// Lines of output that an error shows.
const LINES_KEPT: usize = 20;
/// The prefix of a package's name in the output of the hook (finish.sh).
const PACKAGE_MARK: &str = "cloude-package: ";

/// A running mmdebstrap.
pub(crate) struct Mmdebstrap {
    child: Child,
    stdout: Option<ChildStdout>,
    /// Temporary files and, without root, downloaded packages.
    work: TempDir,
    debs: PathBuf,
    rooted: bool,
    ended: bool,
}

/// The lines of its standard error.
#[derive(Default)]
struct Output {
    packages: Vec<String>,
    lines: VecDeque<String>,
}

impl Mmdebstrap {
    /// Starts mmdebstrap. `debs` is the directory of downloaded packages.
    pub fn start(
        packages: &Packages,
        options: &DebianOptions,
        debs: &Path,
        temp: &Path,
    ) -> Result<Self, DebianError> {
        let prepare = |path: &Path| {
            let path = path.to_owned();
            move |source| DebianError::Prepare { path, source }
        };
        let rooted = rustix::process::geteuid().is_root();
        std::fs::create_dir_all(debs).map_err(prepare(debs))?;
        // Without root, mmdebstrap runs as another user id, which may not enter a home directory.
        let temp = if rooted {
            temp.to_owned()
        } else {
            PathBuf::from("/var/tmp")
        };
        std::fs::create_dir_all(&temp).map_err(prepare(&temp))?;
        let work = tempfile::Builder::new()
            .prefix("debian-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(&temp)
            .map_err(prepare(&temp))?;
        let fetched = work.path().join("debs");
        std::fs::create_dir(&fetched).map_err(prepare(&fetched))?;

        let mut command = command(packages, options, debs, work.path(), rooted);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DebianError::NotInstalled,
            _ => DebianError::Start(error),
        })?;
        let stdout = child.stdout.take();
        Ok(Mmdebstrap {
            child,
            stdout,
            work,
            debs: debs.to_owned(),
            rooted,
            ended: false,
        })
    }

    /// Passes the tar on standard output to `read`. Returns its value and the unpacked packages, as
    /// `name_version_architecture`.
    pub fn run<T, E: From<DebianError>>(
        mut self,
        cancel: &Cancel,
        progress: &dyn Progress,
        read: impl FnOnce(&mut ChildStdout) -> Result<T, E>,
    ) -> Result<(T, Vec<String>), E> {
        let stderr = self.child.stderr.take();
        let stdout = self.stdout.take();
        let (Some(stderr), Some(mut stdout)) = (stderr, stdout) else {
            return Err(DebianError::Start(io::Error::other("no pipe to its output")).into());
        };
        let stderr_lines = Mutex::new(Output::default());
        let pid = self.child.id();
        let done = AtomicBool::new(false);
        let value = std::thread::scope(|scope| {
            scope.spawn(|| listen(BufReader::new(stderr), &stderr_lines, progress));
            scope.spawn(|| stop_when_cancelled(pid, cancel, &done));
            let value = read(&mut stdout);
            let broke_off = match &value {
                // Padding behind the archive's end; unread, it would break the pipe.
                Ok(_) => io::copy(&mut stdout, &mut io::sink()).is_ok(),
                Err(_) => matches!(stdout.read(&mut [0]), Ok(0)),
            };
            drop(stdout);
            if !broke_off {
                terminate(pid);
            }
            let status = self.child.wait();
            self.ended = true;
            done.store(true, Ordering::Relaxed);
            (value, status, broke_off)
        });
        let (value, status, broke_off) = value;
        let mut printed =
            std::mem::take(&mut *stderr_lines.lock().unwrap_or_else(PoisonError::into_inner));
        let status = status.map_err(DebianError::Start)?;
        // A truncated tar is a failure of mmdebstrap: its output has the reason.
        if broke_off && !status.success() && !cancel.is_set() {
            let output = printed.lines.make_contiguous().join("\n");
            return Err(DebianError::Failed {
                status: status.to_string(),
                output,
            }
            .into());
        }
        let value = value?;
        if !self.rooted {
            self.keep_fetched();
        }
        printed.packages.sort();
        Ok((value, printed.packages))
    }

    /// Copies downloaded packages to `debs`. Errors are ignored: the package is downloaded again.
    fn keep_fetched(&self) {
        let Ok(fetched) = std::fs::read_dir(self.work.path().join("debs")) else {
            return;
        };
        for entry in fetched.filter_map(Result::ok) {
            let name = entry.file_name();
            let to = self.debs.join(&name);
            if Path::new(&name)
                .extension()
                .is_none_or(|extension| extension != "deb")
                || to.exists()
            {
                continue;
            }
            let temporary = self.debs.join(format!(".{}", std::process::id()));
            if std::fs::copy(entry.path(), &temporary).is_ok() {
                let _ = std::fs::rename(&temporary, &to);
            }
        }
    }
}

impl Drop for Mmdebstrap {
    fn drop(&mut self) {
        if !self.ended {
            terminate(self.child.id());
            let _ = self.child.wait();
        }
    }
}

fn command(
    packages: &Packages,
    options: &DebianOptions,
    debs: &Path,
    work: &Path,
    rooted: bool,
) -> Command {
    let mut command = Command::new("mmdebstrap");
    command
        .env("TMPDIR", work)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("SOURCE_DATE_EPOCH");
    command.args(["--variant=extract", "--mode=auto", "--format=tar"]);
    // No service is started in the root, and settle.sh cleans up.
    command
        .arg("--skip=chroot/mount,chroot/policy-rc.d,chroot/start-stop-daemon,cleanup,output/dev");
    command.arg(format!("--include={}", package_names(packages).join(",")));
    for (key, value) in &options.apt {
        command.arg(format!("--aptopt={key} \"{value}\""));
    }
    hooks(&mut command, debs, &work.join("debs"), rooted);
    command.args([packages.suite.as_str(), "-"]);
    match &options.mirror {
        Some(mirror) => drop(command.arg(mirror)),
        None => drop(command.args(sources::of_host(&packages.suite))),
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn hooks(command: &mut Command, debs: &Path, fetched: &Path, rooted: bool) {
    let start = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().saturating_sub(2));
    // As root, the hooks hard-link packages. Otherwise they run as another user, and mmdebstrap copies.
    let linked = if rooted { quote(debs) } else { "''".to_owned() };
    let hook = |script: &str| format!("DEBS={linked}; START={start}\n{script}");
    let archives = "/var/cache/apt/archives";
    command.arg(format!("--setup-hook={}", hook(SETUP)));
    if !rooted {
        command.arg(format!("--setup-hook=sync-in {} {archives}", quote(debs)));
    }
    command.arg(format!("--extract-hook={}", hook(FINISH)));
    if !rooted {
        command.arg(format!(
            "--extract-hook=sync-out {archives} {}",
            quote(fetched)
        ));
    }
    command.arg(format!("--extract-hook={}", hook(SETTLE)));
}

/// Sends SIGTERM: mmdebstrap then unmounts and deletes its files.
fn terminate(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn stop_when_cancelled(pid: u32, cancel: &Cancel, done: &AtomicBool) {
    let mut terminated = false;
    while !done.load(Ordering::Relaxed) {
        if cancel.is_set() && !terminated {
            terminate(pid);
            terminated = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listen(stderr: impl Read, output: &Mutex<Output>, progress: &dyn Progress) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while lines
        .read_until(b'\n', &mut line)
        .is_ok_and(|read| read > 0)
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(package) = text.strip_prefix(PACKAGE_MARK) {
            // apt writes a colon in a file name as %3a.
            output.packages.push(package.replace("%3a", ":"));
            continue;
        }
        if let Some(step) = text
            .strip_prefix("I: ")
            .and_then(|step| step.strip_suffix("..."))
        {
            // mmdebstrap prints whole hook scripts.
            if !step.contains("hook") {
                progress.event(&Event::Step {
                    message: step.to_owned(),
                });
            }
        }
        output.lines.push_back(text);
        if output.lines.len() > LINES_KEPT {
            output.lines.pop_front();
        }
    }
}
