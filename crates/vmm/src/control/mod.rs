//! How a worker is told what to do.
//!
//! A worker is `cloude-vmm worker`, started with one end of a `SOCK_SEQPACKET` socketpair as file
//! descriptor 3. Each message is one packet of JSON; the descriptors that it names travel beside it
//! (`SCM_RIGHTS`), in the order that its documentation gives. A worker opens no path of its own.
//! It ends when its VM does, and at once when the other end of the socket closes, so that no VM
//! outlives whoever asked for it.

mod channel;
mod report;
mod spawn;

pub use crate::arch::x86_64::cpuid::CpuBaseline;
pub use crate::snapshot::Origin;
pub use channel::{Channel, ChannelError, MAX_DESCRIPTORS, MAX_MESSAGE};
pub use spawn::spawn;

use serde::{Deserialize, Serialize};

/// The descriptor that a worker finds its control socket at.
pub const CONTROL_FD: i32 = 3;

/// How many bytes one [`Request::ConsoleInput`] may have.
pub const MAX_CONSOLE_INPUT: usize = 4096;

/// Host to worker.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Boot a VM; the first message, and only once. Descriptors: /dev/kvm, the kernel, each
    /// initramfs segment in order, then the TAP if `tap`, then the console's write end if `console`.
    Boot(BootSpec),
    /// Connect to a port of the guest's vsock. Descriptor: one end of a connected stream socket,
    /// whose bytes the worker carries. Held until the guest has reported ready.
    Connect {
        /// Chosen by the host, unique per worker, for the answer.
        id: u64,
        /// The guest's port.
        port: u32,
    },
    /// Bytes typed at the console. More than [`MAX_CONSOLE_INPUT`] in one message end the worker
    /// ([`Event::Failed`]).
    ConsoleInput {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Pause the VM and save it: [`Event::Saved`]. It stays paused.
    ///
    /// A vsock connection that is open becomes part of the snapshot; there may be one at most, and all
    /// that either side sent on it has to have arrived. A VM that cannot be saved is the end of the
    /// worker ([`Event::Failed`]).
    Save {
        /// What the VM was booted of.
        origin: Origin,
    },
    /// Make a VM without a guest, for [`Request::Restore`]; the first message, instead of
    /// [`Request::Boot`]. The answer is [`Event::ShellReady`]. Descriptors: /dev/kvm, then the TAP if
    /// `tap`, then the console's write end if `console`.
    Shell(ShellSpec),
    /// Give a shell the state of a saved VM; once. The answer is [`Event::Restored`], or
    /// [`Event::Failed`], after which the worker ends: a shell that took half a state is of no use.
    /// Descriptors: the memory, the record, and, if a vsock connection was open when the VM was saved,
    /// a connected stream socket that becomes the host's end of it.
    ///
    /// The memory's size is checked and its content is not (`cloude_vmm::snapshot::Template`): whoever
    /// found it on a disk has checked it once.
    ///
    /// With `working_set` the list of pages from an [`Event::WorkingSet`] follows as the last descriptor.
    /// The pages that were only read are mapped now, which costs the paused VM no memory of its own; those
    /// that were written to are copied when it is resumed, before its vCPUs run.
    Restore {
        /// What the snapshot is expected to be of.
        origin: Origin,
        /// A list of pages follows.
        #[serde(default)]
        working_set: bool,
    },
    /// Report the pages that a restored VM has touched so far: [`Event::WorkingSet`]. Possible while it
    /// runs. Descriptor: the worker's `/proc/PID/pagemap`, because a worker opens no path.
    WorkingSet,
    /// Let the vCPUs of a restored VM, or of one that was saved, run. The answer is [`Event::Started`].
    Resume,
}

/// What to make a shell of. All of it has to be as in the [`BootSpec`] of the VMs whose state it is to
/// take, but for the MAC address and the console.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ShellSpec {
    /// 1 to 8.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// A TAP follows. The MAC address is the restored VM's own, whatever that of the saved VM was: its
    /// driver goes on with the old one until the guest is told.
    pub tap: Option<TapSpec>,
    /// A descriptor that takes the console's bytes follows, as for [`BootSpec::console`].
    pub console: bool,
    /// The guest's vsock.
    pub vsock: Option<VsockSpec>,
    /// Which features of the host's processor the guest sees.
    #[serde(default)]
    pub cpu_baseline: CpuBaseline,
}

/// What a restore cost, measured in the worker from the request to the answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct RestoreCosts {
    /// Requests to KVM.
    pub ioctls: u64,
    /// Other system calls that map the memory.
    pub syscalls: u64,
    /// Page faults that no disk was read for.
    pub minor_faults: u64,
    /// Microseconds.
    pub elapsed_us: u64,
}

/// What to boot.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct BootSpec {
    /// 1 to 8.
    pub vcpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// The kernel's command line, whole, ASCII, at most 2047 bytes.
    pub cmdline: String,
    /// How many initramfs segments follow among the descriptors. They are laid out one behind the
    /// other, each padded to 4 bytes.
    pub initramfs_segments: usize,
    /// A TAP follows; the guest gets a virtio-net device with this MAC.
    pub tap: Option<TapSpec>,
    /// A descriptor that takes the console's bytes follows. Never waited for: what it does not take
    /// at once is dropped and counted.
    pub console: bool,
    /// The guest's vsock: its own context id, 3 or more, and the host port whose connection attempt
    /// means that the guest is ready. Every other connection that the guest tries is refused.
    pub vsock: Option<VsockSpec>,
    /// Which features of the host's processor the guest sees.
    #[serde(default)]
    pub cpu_baseline: CpuBaseline,
}

/// A network interface.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TapSpec {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Bytes, offered to the guest (VIRTIO_NET_F_MTU).
    pub mtu: u16,
}

/// A vsock device.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct VsockSpec {
    /// The guest's context id.
    pub guest_cid: u32,
    /// The host port that means ready.
    pub ready_port: u32,
}

/// Worker to host.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The vCPUs run.
    Started,
    /// The guest connected to its ready port.
    Ready,
    /// A [`Request::Connect`] succeeded; its stream is live.
    Connected {
        /// The request's.
        id: u64,
    },
    /// A [`Request::Connect`] was refused; its stream is closed.
    ConnectFailed {
        /// The request's.
        id: u64,
        /// Why.
        reason: String,
    },
    /// The VM is paused and saved. Descriptors: its memory, a memfd that nobody can write to any more,
    /// and its record, such a memfd too.
    Saved,
    /// A [`Request::Shell`] is done: the shell waits for a state.
    ShellReady,
    /// A [`Request::Restore`] is done: the VM is paused.
    Restored {
        /// What it cost.
        costs: RestoreCosts,
    },
    /// The answer to [`Request::WorkingSet`]. Descriptor: the list, a memfd that nobody can write to any more.
    WorkingSet {
        /// How many pages the VM has written to, and so has copies of.
        written_pages: u64,
        /// How many it has only read, with the neighbours that the host mapped along with them.
        read_pages: u64,
    },
    /// The VM ended; the last message, after which the worker exits.
    Exited(ExitReport),
    /// The VM could not be made, saved or restored; the last message.
    Failed {
        /// What was wrong and what to do.
        message: String,
    },
}

/// How a VM ended.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ExitReport {
    /// Why.
    pub reason: ExitReason,
    /// Console bytes that nobody took.
    pub console_dropped_bytes: u64,
}

/// Why a VM ended.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest powered off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset: ACPI, keyboard controller or port 0xcf9.
    Reset,
    /// The guest reported a panic (pvpanic).
    Panic,
    /// A triple fault, which a real machine answers with a reset.
    TripleFault,
    /// KVM could not go on (KVM_EXIT_INTERNAL_ERROR), often an instruction that this KVM cannot emulate.
    InternalError {
        /// `suberror` of `struct kvm_run`.
        suberror: u32,
        /// The rest of its data, for a report.
        data: Vec<u64>,
        /// Where the vCPU was.
        #[serde(default)]
        rip: u64,
        /// The instruction's bytes and what follows them, as far as they can be read.
        #[serde(default)]
        instruction: Vec<u8>,
    },
    /// The vCPU could not be entered (KVM_EXIT_FAIL_ENTRY).
    FailEntry {
        /// `hardware_entry_failure_reason`.
        reason: u64,
    },
    /// An exit that we do not handle.
    Unhandled {
        /// What it was.
        exit: String,
    },
    /// `cloude-vmm` itself has a bug: one of its threads panicked, and the process ended at once.
    WorkerPanic {
        /// What the panic said, and where.
        message: String,
    },
    /// The control socket closed, or a signal asked the worker to stop.
    Stopped,
}
