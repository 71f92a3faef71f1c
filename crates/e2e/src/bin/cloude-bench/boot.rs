//! Cold boot: the time from the start of the VMM's process to the agent's first line on the console.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cloude_e2e::guest::{self, Role};
use cloude_e2e::{binaries, host};
use cloude_protocol::boot::AGENT;
use tempfile::TempDir;

use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// The agent prints this line once it listens.
const READY: &[u8] = b"cloude-agent: ready";
const MEMORY_MIB: u64 = 256;
const MAC: &str = "02:c1:00:00:00:02";
const TAP: &str = "cloude-bench0";

/// A kernel and its initramfs, both as segments for cloude-vmm and joined to the single file that QEMU loads.
pub struct Guest {
    kernel: PathBuf,
    segments: Vec<PathBuf>,
    joined: PathBuf,
    _folder: TempDir,
}

impl Guest {
    /// `language` adds the language's image; without it the initramfs has only the agent.
    pub fn new(kernel: PathBuf, language: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut segments: Vec<PathBuf> = language.map(binaries::image).into_iter().collect();
        segments.push(guest::boot_segment(folder.path(), &kernel, Role::Serve));
        let joined = folder.path().join("joined.cpio");
        let mut all = Vec::new();
        for segment in &segments {
            all.extend(std::fs::read(segment).unwrap());
            // The kernel expects each segment at a multiple of 4 bytes (init/initramfs.c).
            all.resize(all.len().next_multiple_of(4), 0);
        }
        std::fs::write(&joined, all).unwrap();
        Guest {
            kernel,
            segments,
            joined,
            _folder: folder,
        }
    }

    /// The command that boots this guest with cloude-vmm.
    pub fn cloude_vmm(&self) -> Command {
        let mut command = Command::new(binaries::binary("cloude-vmm"));
        command.arg("run").arg("--kernel").arg(&self.kernel);
        for segment in &self.segments {
            command.arg("--initramfs").arg(segment);
        }
        command.args([
            "--memory",
            &MEMORY_MIB.to_string(),
            "--vcpus",
            "1",
            "--init",
            AGENT,
            "--tap",
            TAP,
            "--mac",
            MAC,
        ]);
        command
    }

    /// The command that boots this guest with QEMU's microvm: same kernel, command line, initramfs, memory and
    /// devices, and every optional device off, which is its fastest configuration. The firmware is qboot, because
    /// SeaBIOS, the default with ACPI, loads the kernel through an option ROM and is slower.
    pub fn qemu(&self, qemu: &Qemu) -> Command {
        let mut command = qemu.command();
        command.args(["-M", "microvm,acpi=on,pit=off,pic=off,rtc=off,usb=off,pcie=off,isa-serial=on,x-option-roms=off"]);
        command.args(["-bios", "qboot.rom"]);
        command.args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-smp",
            "1",
            "-m",
            &MEMORY_MIB.to_string(),
        ]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ]);
        command.args(["-device", "virtio-rng-device"]);
        command.args([
            "-netdev",
            &format!("tap,id=net,ifname={TAP},script=no,downscript=no,vhost=off"),
        ]);
        command.args([
            "-device",
            &format!("virtio-net-device,netdev=net,mac={MAC}"),
        ]);
        let file = if self.kernel.is_dir() {
            self.kernel.join("vmlinux")
        } else {
            self.kernel.clone()
        };
        command
            .arg("-kernel")
            .arg(file)
            .arg("-initrd")
            .arg(&self.joined);
        command.args([
            "-append",
            &format!(
                "{} quiet loglevel=3 rdinit={AGENT}",
                cloude_vmm::DEFAULT_CMDLINE
            ),
        ]);
        command
    }
}

/// A copy of QEMU, its libraries and its firmware on tmpfs, where cloude-vmm is, too (tools/on-tmpfs).
pub struct Qemu(TempDir);

impl Qemu {
    pub fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let program = host::run("which", &["qemu-system-x86_64"]);
        let program = Path::new(program.trim());
        // ldd(1): `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader.
        let libraries = host::run("ldd", &[program.to_str().unwrap()]);
        let paths = libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(Path::new);
        let firmware = Path::new("/usr/share/qemu");
        for path in paths.chain([program, &firmware.join("qboot.rom")]) {
            std::fs::copy(path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        Qemu(folder)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.0.path().join("qemu-system-x86_64"));
        command
            .env("LD_LIBRARY_PATH", self.0.path())
            .arg("-L")
            .arg(self.0.path());
        command
    }
}

/// A booted guest's process; killed when it is dropped.
pub struct Booted(Child);

impl Booted {
    /// The process's id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // An error means that the process ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a VMM and waits for [`READY`]. Returns the process and the time since its start.
pub fn boot(mut command: Command) -> (Booted, Duration) {
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut booted = Booted(child);
    let mut stdout = booted.0.stdout.take().unwrap();
    // A thread reads, so that a time limit applies to a guest that prints nothing. It continues after READY:
    // a full pipe would block the VMM's console.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            let _ = sender.send((start.elapsed(), buffer[..count].to_vec()));
        }
    });
    let mut console = Vec::new();
    while let Ok((elapsed, more)) =
        receiver.recv_timeout(host::patience().saturating_sub(start.elapsed()))
    {
        console.extend(more);
        if console.windows(READY.len()).any(|window| window == READY) {
            return (booted, elapsed);
        }
    }
    panic!(
        "{command:?}: the agent did not start within {:.0} s:\n{}",
        start.elapsed().as_secs_f64(),
        String::from_utf8_lossy(&console)
    );
}

fn time(command: Command) -> f64 {
    let (_booted, elapsed) = boot(command);
    elapsed.as_secs_f64() * 1e3
}

pub fn measure(report: &mut Report) {
    host::isolate();
    let qemu = Qemu::new();
    let stock = binaries::named_kernel("stock").expect("no stock kernel: run kernel/fetch");
    let tuned = binaries::named_kernel("tuned");
    for language in [None, Some("python")] {
        let what = language.map_or("agent alone".to_owned(), |name| format!("{name} image"));
        let stock = measure_pair(report, &qemu, &stock, "stock", language, &what);
        match &tuned {
            Some(tuned) => {
                let tuned = measure_pair(report, &qemu, tuned, "tuned", language, &what);
                let row = ratio(
                    format!("cold boot, {what}: tuned / stock kernel"),
                    &tuned,
                    &stock,
                    ("tuned", "stock"),
                );
                // The threshold applies without an image: every kernel unpacks an image equally fast.
                report.push(if language.is_none() {
                    row.promised(Threshold::AtMost(0.6))
                } else {
                    row
                });
            }
            None => eprintln!("no tuned kernel: run kernel/build to have it measured too"),
        }
    }
}

/// Alternates cloude-vmm and QEMU, so that other load on the host affects both.
fn measure_pair(
    report: &mut Report,
    qemu: &Qemu,
    kernel: &Path,
    name: &str,
    language: Option<&str>,
    what: &str,
) -> Samples {
    let guest = Guest::new(kernel.to_owned(), language);
    // Not measured: the first boot of each fills the page cache.
    time(guest.cloude_vmm());
    time(guest.qemu(qemu));
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..report.runs {
        ours.0.push(time(guest.cloude_vmm()));
        theirs.0.push(time(guest.qemu(qemu)));
    }
    let row = ratio(
        format!("cold boot, {what}, {name} kernel: cloude-vmm / QEMU microvm"),
        &ours,
        &theirs,
        ("cloude-vmm", "qemu"),
    );
    report.push(row.promised(Threshold::AtMost(0.8)));
    ours
}

fn ratio(name: String, ours: &Samples, theirs: &Samples, names: (&str, &str)) -> Row {
    let (a, b) = (ours.median(), theirs.median());
    Row::new(name, format!("{a:.0} ms"), a / b)
        .against(format!("{b:.0} ms"))
        .samples(names.0, ours)
        .samples(names.1, theirs)
}
