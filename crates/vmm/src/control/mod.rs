//! The protocol between a host process and a worker.
//!
//! A worker is `cloude-vmm worker`, started with one end of a `SOCK_SEQPACKET` socketpair as file descriptor 3. Each
//! message is one packet of JSON. Descriptors are passed with it (`SCM_RIGHTS`) in the order that the message
//! documents; a worker opens no path. The worker exits when its VM ends, and at once when the other end of the socket
//! closes, so that no VM outlives its host process.
//!
//! The order of requests is `Boot (Save Resume)?` or `Blank Restore Resume`. [`Request::Connect`],
//! [`Request::ConsoleInput`], [`Request::WorkingSet`] and [`Request::Denied`] are possible while the VM runs.

mod channel;
mod exec;
mod probe;
mod process;
mod report;
mod spawn;

pub use crate::arch::x86_64::cpuid::CpuBaseline;
pub use crate::devices::virtio::net::{
    Denial, DeniedCount, DeniedReport, DenyReason, EgressSpec, NetLimits, Protocol,
};
pub use crate::snapshot::Origin;
pub use channel::{Channel, ChannelError, MAX_DESCRIPTORS, MAX_MESSAGE};
pub use probe::probe;
pub use process::WorkerProcess;
pub use spawn::{CgroupEntry, SpawnOptions, spawn};

use serde::{Deserialize, Serialize};

/// The number of a worker's control socket.
pub const CONTROL_FD: i32 = 3;

/// The most bytes of one [`Request::ConsoleInput`].
pub const MAX_CONSOLE_INPUT: usize = 4096;

/// A message from the host to the worker.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Boot a VM; only as the first message. The answer is [`Event::Started`]. Descriptors: /dev/kvm, the kernel, each
    /// initramfs segment in order, the TAP if `tap`, the console's write end if `console`.
    Boot(BootSpec),
    /// Connect to a vsock port of the guest. The connect waits until the guest has reported ready. Descriptor: one end
    /// of a connected stream socket, between which and the guest the worker copies.
    Connect {
        /// Chosen by the host, unique per worker; the answer repeats it.
        id: u64,
        /// The guest's port.
        port: u32,
    },
    /// Send bytes to the console. More than [`MAX_CONSOLE_INPUT`] end the worker ([`Event::Failed`]).
    ConsoleInput {
        /// The bytes to send.
        bytes: Vec<u8>,
    },
    /// Pause and save the VM, which stays paused. The answer is [`Event::Saved`], or [`Event::Failed`], after which the
    /// worker ends.
    ///
    /// A snapshot holds at most one open vsock connection. The save fails while a connect is pending or bytes are
    /// buffered in either direction outside guest memory.
    Save {
        /// The software that the VM was booted from.
        origin: Origin,
    },
    /// Create a blank VM for [`Request::Restore`]; only as the first message. The answer is [`Event::BlankReady`].
    /// Descriptors: /dev/kvm, the TAP if `tap`, the console's write end if `console`.
    Blank(BlankVmSpec),
    /// Restore a snapshot into the blank VM; once. The answer is [`Event::Restored`], or [`Event::Failed`], after which
    /// the worker ends: a partly restored VM is unusable. Descriptors: the memory file, the VM state file, a connected
    /// stream socket if the snapshot has an open vsock connection, the working set if `working_set`.
    ///
    /// The worker checks the memory file's size, not its content: check a file from a disk once with
    /// [`crate::snapshot::Template::verify_memory`].
    ///
    /// The working set is the list of an [`Event::WorkingSet`]. Pages that were only read are mapped now, which costs
    /// the paused VM no memory. Pages that were written are copied at [`Request::Resume`], before the vCPUs run.
    Restore {
        /// The software that the snapshot must be made from.
        origin: Origin,
        /// True if a working set is among the descriptors.
        #[serde(default)]
        working_set: bool,
    },
    /// Report the pages that a restored VM has touched so far; only while it runs. The answer is
    /// [`Event::WorkingSet`].
    WorkingSet,
    /// Report the frames that the network device has dropped; only while the VM runs. The answer is
    /// [`Event::Denied`], empty without a network device.
    Denied,
    /// Run the vCPUs of a restored or saved VM. The answer is [`Event::Started`].
    Resume,
}

/// The configuration of a blank VM. It must equal the [`BootSpec`] of every snapshot to restore, except for the MAC
/// address and the console.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct BlankVmSpec {
    /// Number of vCPUs, 1 to 8.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The VM has a virtio-net device, and its TAP is among the descriptors. The MAC address is that of the restored
    /// device; the guest's interface keeps the saved address until the guest changes it.
    pub tap: Option<TapSpec>,
    /// The console's write end is among the descriptors, as for [`BootSpec::console`].
    pub console: bool,
    /// The VM has a vsock device.
    pub vsock: Option<VsockSpec>,
    /// The CPU features that the guest sees.
    #[serde(default)]
    pub cpu_baseline: CpuBaseline,
}

/// The costs of a restore, measured in the worker from the request to the answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct RestoreCosts {
    /// Number of KVM ioctls.
    pub ioctls: u64,
    /// Number of system calls that map memory.
    pub syscalls: u64,
    /// Minor page faults of the process.
    pub minor_faults: u64,
    /// Duration in microseconds.
    pub elapsed_us: u64,
}

/// The configuration of a VM to boot.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct BootSpec {
    /// Number of vCPUs, 1 to 8.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The complete kernel command line: printable ASCII, at most 2047 bytes.
    pub cmdline: String,
    /// Number of initramfs segments among the descriptors. They are concatenated, each padded to 4 bytes.
    pub initramfs_segments: usize,
    /// The VM has a virtio-net device, and its TAP is among the descriptors.
    pub tap: Option<TapSpec>,
    /// The console's write end is among the descriptors. The worker never blocks on it: bytes that it does not accept
    /// at once are dropped and counted.
    pub console: bool,
    /// The VM has a vsock device. Connections from the guest are refused; the one to the ready port is reported as
    /// [`Event::Ready`].
    pub vsock: Option<VsockSpec>,
    /// The CPU features that the guest sees.
    #[serde(default)]
    pub cpu_baseline: CpuBaseline,
}

/// A virtio-net device.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TapSpec {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The MTU in bytes, 68 to 65535 (VIRTIO_NET_F_MTU).
    pub mtu: u16,
    /// The frames that the guest may send. Not part of a snapshot: the filter is that of the restored device.
    pub egress: EgressSpec,
    /// Limits of the device, which are not part of a snapshot either.
    pub limits: NetLimits,
}

/// A vsock device.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct VsockSpec {
    /// The guest's CID, 3 or more.
    pub guest_cid: u32,
    /// The host port to which the guest connects once it is ready.
    pub ready_port: u32,
}

/// A message from the worker to the host.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The vCPUs are running.
    Started,
    /// The guest has connected to its ready port. Sent once.
    Ready,
    /// A [`Request::Connect`] succeeded; its stream is open.
    Connected {
        /// The id of the request.
        id: u64,
    },
    /// A [`Request::Connect`] was refused; its stream is closed.
    ConnectFailed {
        /// The id of the request.
        id: u64,
        /// The reason as text.
        reason: String,
    },
    /// The VM is paused and saved. Descriptors: the memory file and the VM state file, both memfds sealed against
    /// writing.
    Saved,
    /// The blank VM waits for [`Request::Restore`].
    BlankReady,
    /// The snapshot is restored; the VM is paused and waits for [`Request::Resume`].
    Restored {
        /// The costs of the restore.
        costs: RestoreCosts,
    },
    /// The answer to [`Request::WorkingSet`]. Descriptor: the list, a memfd sealed against writing.
    WorkingSet {
        /// Number of pages that the VM has written and so has copied.
        written_pages: u64,
        /// Number of pages that it has only read, fault-around neighbours included.
        read_pages: u64,
    },
    /// The answer to [`Request::Denied`]: frames of the guest that the network device has dropped.
    Denied(DeniedReport),
    /// The VM has ended. The last message: the worker exits.
    Exited(ExitReport),
    /// The VM could not be created, saved or restored. The last message: the worker exits.
    Failed {
        /// The error and the way out.
        message: String,
    },
}

/// The end of a VM.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ExitReport {
    /// The reason.
    pub reason: ExitReason,
    /// Console bytes that were dropped because the console's descriptor was full.
    pub console_dropped_bytes: u64,
}

/// The reason for the end of a VM.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest powered off (ACPI S5).
    PowerOff,
    /// The guest requested a reset: ACPI, keyboard controller or port 0xcf9.
    Reset,
    /// The guest's kernel panicked: pvpanic, or a panic message on the console before a reset.
    Panic,
    /// A vCPU triple-faulted (KVM_EXIT_SHUTDOWN).
    TripleFault,
    /// KVM_EXIT_INTERNAL_ERROR, often an instruction that this KVM cannot emulate.
    InternalError {
        /// `suberror` of `struct kvm_run`.
        suberror: u32,
        /// `data` of the exit.
        data: Vec<u64>,
        /// The instruction pointer of the vCPU.
        #[serde(default)]
        rip: u64,
        /// Up to 15 bytes at the instruction pointer; empty if they cannot be read.
        #[serde(default)]
        instruction: Vec<u8>,
    },
    /// KVM_EXIT_FAIL_ENTRY: the vCPU could not be entered.
    FailEntry {
        /// `hardware_entry_failure_reason`.
        reason: u64,
    },
    /// A KVM exit that this crate does not handle.
    Unhandled {
        /// The exit, or the failed call.
        exit: String,
    },
    /// A thread of the worker panicked, which is a bug in `cloude-vmm`, and the process ended at once.
    WorkerPanic {
        /// The panic's message and place.
        message: String,
    },
    /// The worker made a system call that its filter forbids, and was ended at once. Either the guest has taken over
    /// its worker, or `cloude-vmm` has a bug.
    ForbiddenSyscall {
        /// The x86-64 number of the call; [`crate::jail::syscall_name`] has its name.
        number: i32,
    },
    /// The control socket closed, or a signal asked the worker to stop.
    Stopped,
}
