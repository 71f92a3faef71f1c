//! `cloude-vmm run`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cloude_vmm::DEFAULT_CMDLINE;
use cloude_vmm::arch::x86_64::boot::BootError;
use cloude_vmm::control::ExitReport;
use cloude_vmm::devices::virtio::net::{Net, NetConfig, NetError};
use cloude_vmm::devices::virtio::rng::Rng;
use cloude_vmm::memory::MemoryError;
use cloude_vmm::probe::{KvmKind, kvm_kind, open_kvm};
use cloude_vmm::vm::{MachineShape, SignalWatch, Vm, VmError};

use super::terminal::{Output, RawMode, start_input};
use super::{RunArgs, exit_code, net};

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot open {what} {path}: {source}")]
    Open {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0}")]
    NoKvm(String),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error("cannot open TAP {name}: {source}")]
    Tap { name: String, source: io::Error },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("cannot set up the terminal: {0}")]
    Terminal(io::Error),
}

impl RunError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Open { .. } => exit_code::NO_INPUT,
            Self::NoKvm(_) => exit_code::UNAVAILABLE,
            Self::Vm(
                VmError::Vcpus { .. }
                | VmError::Memory(MemoryError::TooSmall { .. } | MemoryError::TooLarge { .. })
                | VmError::Boot(BootError::CmdlineTooLong { .. } | BootError::CmdlineNotAscii { .. }),
            ) => exit_code::USAGE,
            Self::Vm(VmError::Capability(_)) => exit_code::UNAVAILABLE,
            _ => exit_code::FAILED,
        }
    }
}

pub fn main(args: RunArgs) -> ExitCode {
    match run(&args) {
        Ok(report) => {
            eprintln!("cloude-vmm: {}", report.reason);
            if report.console_dropped_bytes > 0 {
                let dropped = report.console_dropped_bytes;
                eprintln!(
                    "cloude-vmm: {dropped} bytes of console output were dropped: the output pipe was full"
                );
            }
            hint(&report);
            ExitCode::from(exit_code::of(&report.reason))
        }
        Err(error) => {
            eprintln!("cloude-vmm: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// A failed emulation is most often caused by a PVM host, not by the guest.
fn hint(report: &ExitReport) {
    use cloude_vmm::control::ExitReason::InternalError;
    if matches!(report.reason, InternalError { .. })
        && let KvmKind::Pvm { .. } = kvm_kind()
    {
        eprintln!("cloude-vmm: this host's KVM boots no ordinary kernel; use tools/with-kvm");
    }
}

fn run(args: &RunArgs) -> Result<ExitReport, RunError> {
    let kernel = open_kernel(&args.kernel)?;
    let initramfs = args
        .initramfs
        .iter()
        .map(|path| open("the initramfs", path))
        .collect::<Result<Vec<_>, _>>()?;
    let tap = args.tap.as_deref().map(|name| {
        net::open_tap(name).map_err(|source| RunError::Tap {
            name: name.to_owned(),
            source,
        })
    });
    let tap = tap.transpose()?;
    let kvm = open_kvm().map_err(RunError::NoKvm)?;

    // Before any thread exists, so that every thread blocks the signals.
    let signals = SignalWatch::block().map_err(RunError::Terminal)?;
    let (output, console) = Output::start().map_err(RunError::Terminal)?;
    let shape = MachineShape {
        vcpus: args.vcpus,
        memory_mib: args.memory,
        cpu_baseline: args.cpu_baseline,
    };
    let mut vm = Vm::new(&kvm, shape, Some(console))?;
    vm.attach_virtio(Rng)?;
    if let (Some(tap), Some(name)) = (tap, &args.tap) {
        let mac = args.mac.unwrap_or_else(|| net::mac_for(name));
        vm.attach_virtio(Net::new(tap.into(), NetConfig { mac, mtu: 1500 })?)?;
    }
    let cmdline = cmdline(args, vm.has_invariant_tsc());
    vm.load(&kernel, &initramfs, &cmdline)?;
    let report = serve(&mut vm, args.console, signals);
    // Closes the guest's end of the console pipe, which ends the output thread.
    drop(vm);
    output.finish();
    report
}

fn serve(vm: &mut Vm, console: bool, signals: SignalWatch) -> Result<ExitReport, RunError> {
    let _raw_mode = if console {
        start_input(vm.serial(), vm.exit_signal()).map_err(RunError::Terminal)?;
        Some(RawMode::enter().map_err(RunError::Terminal)?)
    } else {
        None
    };
    vm.start()?;
    let signals = signals.into_subscriber(vm.exit_signal());
    Ok(vm.serve(vec![signals])?)
}

fn open_kernel(path: &Path) -> Result<File, RunError> {
    if path.is_dir() {
        return open("the kernel", &path.join("vmlinux"));
    }
    open("the kernel", path)
}

fn open(what: &'static str, path: &Path) -> Result<File, RunError> {
    let error = |source| RunError::Open {
        what,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(error)?;
    if file.metadata().map_err(error)?.is_dir() {
        return Err(error(io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

fn cmdline(args: &RunArgs, invariant_tsc: bool) -> String {
    let mut parts = vec![DEFAULT_CMDLINE.to_owned()];
    if invariant_tsc {
        // Skips the guest's comparison of the TSC with other clocks.
        parts.push("tsc=reliable".to_owned());
    }
    if !args.verbose {
        // `quiet` alone still prints errors, such as the missing PCI bus. A panic is always printed.
        parts.push("quiet loglevel=3".to_owned());
    }
    parts.extend(args.init.iter().map(|init| format!("rdinit={init}")));
    parts.extend(args.ip.iter().map(|ip| format!("cloude.ip={ip}")));
    if !args.cmdline.is_empty() {
        parts.push(args.cmdline.clone());
    }
    parts.join(" ")
}
