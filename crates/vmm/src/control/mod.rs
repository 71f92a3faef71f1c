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

pub use channel::{Channel, ChannelError, MAX_DESCRIPTORS, MAX_MESSAGE};
pub use spawn::spawn;

use serde::{Deserialize, Serialize};

/// The descriptor that a worker finds its control socket at.
pub const CONTROL_FD: i32 = 3;

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
    /// Bytes typed at the console. At most 4096 in one message.
    ConsoleInput {
        /// The bytes.
        bytes: Vec<u8>,
    },
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
    /// The VM ended; the last message, after which the worker exits.
    Exited(ExitReport),
    /// The VM could not be made; the last message.
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
    /// Every vCPU halted with interrupts off: nothing can wake the guest.
    Halt,
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
    /// The control socket closed, or a signal asked the worker to stop.
    Stopped,
}
