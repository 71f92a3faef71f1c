//! A guest kernel that attacks the virtual machine monitor: `attack.c` as the first program of a VM, below the drivers.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use cloude_e2e::oci::{Layer, write_layout};
use cloude_e2e::{binaries, host};
use cloude_engine::network::tap;
use cloude_vmm::control::{
    BootSpec, Channel, CpuBaseline, EgressSpec, Event, ExitReason, NetLimits, Request,
    SpawnOptions, TapSpec, VsockSpec, WorkerProcess, spawn,
};
use cloude_vmm::jail::{Wall, Walls};

use crate::case::{Case, case};

const SOURCE: &str = include_str!("attack.c");

/// The attacks on a virtqueue or a window of registers, and what each does to a naive device model.
const ATTACKS: &[(&str, &str)] = &[
    (
        "loops",
        "a chain of descriptors without end is followed for ever",
    ),
    ("next_out_of_range", "a descriptor beyond the table is read"),
    ("head_out_of_range", "a descriptor beyond the table is read"),
    (
        "outside_of_memory",
        "an address outside of guest memory is read or written in the worker",
    ),
    (
        "wrapping_length",
        "address plus length wraps, and passes the check",
    ),
    (
        "indirect_tables",
        "an indirect table of odd size or in another one is followed",
    ),
    (
        "indirect_at_itself",
        "an indirect table that is the table itself never ends",
    ),
    (
        "index_jumps",
        "the index of available buffers runs ahead, and old buffers are used again",
    ),
    (
        "rings_outside_of_memory",
        "a ring outside of guest memory is used",
    ),
    (
        "rings_on_each_other",
        "a device that writes its own descriptors follows them",
    ),
    (
        "queue_sizes",
        "a queue of size 0 divides by zero, one of 65535 reads beyond",
    ),
    (
        "changes_while_running",
        "rings that move under a running device are used half old, half new",
    ),
    (
        "no_negotiation",
        "a device without a driver uses rings that were never set",
    ),
    (
        "every_register",
        "a random value in a register ends the worker",
    ),
    ("odd_widths", "an access of one, two or eight bytes panics"),
    (
        "notification_flood",
        "notifications of queues that do not exist index out of bounds",
    ),
    (
        "useless_buffers",
        "buffers that can hold nothing are collected until memory is full",
    ),
    (
        "descriptors_change_under_the_device",
        "what was checked is not what is used",
    ),
    (
        "resets_in_the_middle",
        "a reset leaves a buffer in use, which is written afterwards",
    ),
];

/// The virtio device ids (specification, section 5) of a VM's devices.
const DEVICES: &[(&str, u32)] = &[("net", 1), ("rng", 4), ("vsock", 19)];

struct Guest {
    channel: Channel,
    worker: WorkerProcess,
    console: File,
}

impl Guest {
    /// Boots `attack.c` with `attack=NAME` in a worker, as the engine does.
    fn boot(attack: &str) -> Self {
        binaries::require_kvm();
        host::isolate();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("attack.c"), SOURCE).unwrap();
        host::run(
            "gcc",
            &[
                "-static",
                "-O2",
                "-pthread",
                "-o",
                &path("attack"),
                &path("attack.c"),
            ],
        );
        let program = std::fs::read(path("attack")).unwrap();
        let layer =
            Layer::default()
                .directory("dev", 0o755, (0, 0))
                .file("init", 0o755, (0, 0), &program);
        write_layout(&folder.path().join("layout"), "attack", vec![layer]);
        host::run(
            binaries::binary("cloude-initramfs").to_str().unwrap(),
            &[
                "build",
                &format!("oci:{}:attack", path("layout")),
                "--quiet",
                "--output",
                &path("image.cpio"),
            ],
        );
        // The stock kernel: it has /dev/mem and kexec, and its virtio drivers are modules, which nobody loads here.
        let kernel = binaries::named_kernel("stock").expect("no stock kernel: run kernel/fetch");
        let (console, console_end) = pipe();
        let tap = tap::create("attack0").unwrap();
        host::run("ip", &["link", "set", "attack0", "up"]);
        let spec = BootSpec {
            vcpus: 2,
            memory_mib: 256,
            cmdline: format!("{} attack={attack}", cloude_vmm::DEFAULT_CMDLINE),
            initramfs_segments: 1,
            tap: Some(TapSpec {
                mac: [2, 0xc1, 0, 0, 0, 9],
                mtu: 1500,
                egress: EgressSpec::default(),
                limits: NetLimits::default(),
            }),
            console: true,
            vsock: Some(VsockSpec {
                guest_cid: 3,
                ready_port: 1,
            }),
            cpu_baseline: CpuBaseline::default(),
        };
        let files = [
            File::options()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .unwrap(),
            File::open(kernel.join("vmlinux")).unwrap(),
            File::open(path("image.cpio")).unwrap(),
            tap,
            console_end,
        ];
        let descriptors: Vec<BorrowedFd> = files.iter().map(|file| file.as_fd()).collect();
        let walls = [Wall::Namespaces, Wall::Root, Wall::Landlock, Wall::Seccomp];
        let options = SpawnOptions {
            walls: walls.into_iter().fold(Walls::NONE, Walls::with),
            ..SpawnOptions::default()
        };
        let (worker, channel) = spawn(&binaries::binary("cloude-vmm"), &options).unwrap();
        channel.send(&Request::Boot(spec), &descriptors).unwrap();
        Guest {
            channel,
            worker,
            console,
        }
    }

    /// Waits until the VM has ended; returns its console and the reason.
    fn end(mut self) -> (String, ExitReason) {
        let mut text = Vec::new();
        let reason = host::wait_for("the attacking VM ends", || {
            self.read_console(&mut text);
            match self.channel.try_recv::<Event>() {
                Ok(Some((Event::Exited(report), _))) => Some(report.reason),
                Ok(Some((Event::Failed { message }, _))) => panic!("the VM failed: {message}"),
                Ok(_) => None,
                Err(error) => panic!(
                    "the worker died: {error}: {}",
                    String::from_utf8_lossy(&text)
                ),
            }
        });
        self.worker.wait().unwrap();
        self.read_console(&mut text);
        (String::from_utf8_lossy(&text).into_owned(), reason)
    }

    /// Waits for `mark` on the console, which the running attack prints, then kills the VM as the engine does.
    fn kill_after(mut self, mark: &str) {
        let mut text = Vec::new();
        host::wait_for("the attack runs", || {
            self.read_console(&mut text);
            String::from_utf8_lossy(&text).contains(mark).then_some(())
        });
        drop(self.channel);
        // It ends by itself, as when clouded is killed.
        assert_ne!(self.worker.wait().unwrap(), Some(70), "the worker panicked");
    }

    fn read_console(&mut self, text: &mut Vec<u8>) {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = self.console.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
    }
}

/// A pipe whose read end does not block.
fn pipe() -> (File, File) {
    let (read, write) = std::io::pipe().unwrap();
    let read = OwnedFd::from(read);
    // SAFETY: fcntl with integer arguments on a descriptor that `read` owns.
    let result = unsafe {
        libc::fcntl(
            std::os::fd::AsRawFd::as_raw_fd(&read),
            libc::F_SETFL,
            libc::O_NONBLOCK,
        )
    };
    assert_eq!(result, 0);
    (read.into(), OwnedFd::from(write).into())
}

/// One VM makes all attacks on the devices; each case looks for its own line.
fn attacked_devices() -> &'static (String, ExitReason) {
    static RUN: OnceLock<(String, ExitReason)> = OnceLock::new();
    RUN.get_or_init(|| Guest::boot("devices").end())
}

fn survived(name: &str, naive: &str, line: String) -> Case {
    case(name, naive, move || {
        let (console, reason) = attacked_devices();
        assert!(console.contains(&line), "no line {line:?} in:\n{console}");
        assert_eq!(*reason, ExitReason::PowerOff, "{console}");
    })
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (device, id) in DEVICES {
        for (attack, naive) in ATTACKS {
            cases.push(survived(
                &format!("device::{device}_{attack}"),
                naive,
                format!("attack {attack} {id}: done"),
            ));
        }
    }
    cases.push(survived(
        "device::unmapped_addresses",
        "an access beside the devices ends the worker",
        "attack unmapped_addresses 0: done".to_owned(),
    ));
    cases.push(survived(
        "device::ports",
        "an access to a port without a device ends the worker",
        "attack ports 0: done".to_owned(),
    ));
    cases.push(case(
        "kernel::triple_fault",
        "the worker reports nothing, or a failure of the server",
        || {
            let (console, reason) = Guest::boot("triple-fault").end();
            assert_eq!(reason, ExitReason::TripleFault, "{console}");
        },
    ));
    cases.push(case(
        "kernel::replaced_by_kexec",
        "code below the guest kernel, which no interrupt stops, cannot be ended",
        || Guest::boot("spin").kill_after("K"),
    ));
    cases.push(case(
        "kernel::serial_flood",
        "the worker waits for whoever reads the console, or keeps it all",
        || {
            let (console, reason) = Guest::boot("serial").end();
            assert_eq!(reason, ExitReason::PowerOff, "{console}");
        },
    ));
    cases
}
