//! The device: what it offers, and the one round of work that every event leads to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::EventSet;
use serde::Deserialize;
use serde_json::Value;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::timerfd::TimerFd;

use super::connection::{Connection, Phase};
use super::handle::{ConnectRequest, Shared};
use super::{ConnectionState, RXQ, TXQ, VsockHandle, VsockState};
use crate::devices::StateError;
use crate::devices::virtio::{RingError, Rings, VirtioDevice, Watch, read_config_bytes};

const NAME: &str = "vsock";
/// Spec section 5.10.1.
const DEVICE_TYPE: u32 = 19;
/// Receive, transmit, event.
const QUEUE_SIZES: &[u16] = &[256, 256, 64];
/// Resets that wait for the guest's buffers. At the limit no more is taken from the guest, so that a
/// guest that provokes them and takes none waits for itself.
pub(super) const RESET_LIMIT: usize = 256;

/// Who the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context id, 3 or more (0 to 2 are reserved, spec section 5.10.4).
    pub guest_cid: u32,
    /// The host port whose connection attempt means that the guest is ready.
    pub ready_port: u32,
}

/// A connection of the state, for [`Vsock::attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The id of the connect that it came from.
    pub id: u64,
    /// The host's port, which names the connection.
    pub local_port: u32,
    /// The guest's port.
    pub guest_port: u32,
    /// Whether it has a stream.
    pub attached: bool,
    /// Whether either side may still send: not waiting for the guest to agree to its end.
    pub open: bool,
}

/// A stream that cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No connection has this host port. Look at [`Vsock::connections`].
    #[error("no connection has the host port {0}")]
    NoConnection(u32),
    /// The connection has its stream.
    #[error("the connection of host port {0} has a stream already")]
    Attached(u32),
    /// The descriptor cannot be watched: it is no socket, or watched already.
    #[error("the stream for host port {port} cannot be watched: {source}")]
    Watch {
        /// The host port.
        port: u32,
        /// Why.
        source: io::Error,
    },
}

/// A virtio-vsock device.
pub struct Vsock {
    pub(super) config: VsockConfig,
    pub(super) shared: Arc<Shared>,
    /// Watches the streams, the timer and the handle's eventfd; the event loop watches this alone, so
    /// that streams come and go on any thread.
    pub(super) epoll: Epoll,
    pub(super) timer: TimerFd,
    /// How long the guest may take to answer.
    pub(super) patience: Duration,
    /// What the timer is set to.
    pub(super) timer_set: Option<Instant>,
    /// By the host's port, which is unique.
    pub(super) connections: BTreeMap<u32, Connection>,
    /// Gone for the guest; the rest of what it sent still goes to the stream. By the host's port.
    pub(super) draining: BTreeMap<u32, Connection>,
    /// Connects that wait for the guest to report ready.
    pub(super) waiting: VecDeque<ConnectRequest>,
    /// Resets for the guest: the host's port, then the guest's.
    pub(super) resets: VecDeque<(u32, u32)>,
    /// Host ports of connections with something for the guest, each once.
    pub(super) line: VecDeque<u32>,
    pub(super) next_port: u32,
    pub(super) ready: bool,
    pub(super) ready_said: bool,
}

impl Vsock {
    /// A device that reports through its [`Vsock::handle`].
    pub fn new(config: VsockConfig) -> io::Result<Self> {
        let device = Self {
            config,
            shared: Arc::new(Shared::new()?),
            epoll: Epoll::new()?,
            timer: TimerFd::new().map_err(io::Error::from)?,
            patience: super::host::PATIENCE,
            timer_set: None,
            connections: BTreeMap::new(),
            draining: BTreeMap::new(),
            waiting: VecDeque::new(),
            resets: VecDeque::new(),
            line: VecDeque::new(),
            next_port: super::host::FIRST_PORT,
            ready: false,
            ready_said: false,
        };
        device.watch_own_descriptors()?;
        Ok(device)
    }

    /// What to ask for connections with.
    pub fn handle(&self) -> VsockHandle {
        VsockHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The connections that the guest has.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let info = |c: &Connection| ConnectionInfo {
            id: c.id,
            local_port: c.local_port,
            guest_port: c.guest_port,
            attached: c.stream.is_some(),
            open: c.phase == Phase::Established,
        };
        self.connections.values().map(info).collect()
    }

    /// Why a save now would lose bytes, or a connect, if it would: what streams hold is not part of the
    /// state. To be asked while paused.
    pub fn under_way(&self) -> Option<&'static str> {
        let asked = self.shared.has_requests() || !self.waiting.is_empty();
        if asked || self.has(|c| c.phase == Phase::Connecting) {
            return Some("a connect is under way");
        }
        if !self.draining.is_empty() || self.has(|c| !c.buffer.is_empty()) {
            return Some("the guest has sent what the host has not taken");
        }
        if self.has(Connection::stream_has_bytes) {
            return Some("the host has sent what the guest has not taken");
        }
        None
    }

    fn has(&self, what: impl Fn(&Connection) -> bool) -> bool {
        self.connections.values().any(what)
    }

    /// Gives a restored connection its stream, a connected stream socket. What the guest sent in the
    /// meantime goes to it first.
    pub fn attach(&mut self, local_port: u32, stream: OwnedFd) -> Result<(), AttachError> {
        let connection = self
            .connections
            .get(&local_port)
            .ok_or(AttachError::NoConnection(local_port))?;
        if connection.stream.is_some() || connection.phase != Phase::Established {
            return Err(AttachError::Attached(local_port));
        }
        self.watch_stream(local_port, &stream)
            .map_err(|source| AttachError::Watch {
                port: local_port,
                source,
            })?;
        if let Some(connection) = self.connections.get_mut(&local_port) {
            connection.stream = Some(stream);
            connection.readable = true;
            // Also carries out what the guest's shutdown asks of the new stream.
            connection.guest_shut_down(0);
        }
        self.after_flush(local_port);
        self.enqueue(local_port);
        self.shared.kick();
        Ok(())
    }

    /// All that can be done now.
    fn work(&mut self, rings: Option<&mut Rings>) -> Result<(), RingError> {
        self.poll_streams();
        if let Some(rings) = rings {
            let cut_short = self.transmit(rings)?;
            self.start_waiting();
            self.receive(rings)?;
            // One interrupt for both directions: the driver looks at every queue.
            rings.flush_all(&[RXQ, TXQ])?;
            if cut_short && self.resets.len() < RESET_LIMIT {
                rings.kick(TXQ);
            }
        }
        self.arm_timer();
        Ok(())
    }
}

impl VirtioDevice for Vsock {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(
            &u64::from(self.config.guest_cid).to_le_bytes(),
            offset,
            data,
        );
    }

    fn queue_ready(&mut self, rings: &mut Rings, _queue: usize) -> Result<(), RingError> {
        self.work(Some(rings))
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch {
            fd: self.epoll.as_raw_fd(),
            events: EventSet::IN,
        }]
    }

    fn fd_ready(
        &mut self,
        rings: Option<&mut Rings>,
        _watch: usize,
        _events: EventSet,
    ) -> Result<(), RingError> {
        self.work(rings)
    }

    fn pause(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        // What the guest has sent goes to its streams, which a restored device does not have.
        self.work(Some(rings))
    }

    fn reset(&mut self) {
        for (_, connection) in std::mem::take(&mut self.connections) {
            if connection.phase == Phase::Connecting {
                self.connect_failed(connection.id, "the guest reset its vsock device");
            } else if !connection.buffer.is_empty() && connection.stream.is_some() {
                // What the guest sent before is still the stream's.
                self.draining.insert(connection.local_port, connection);
            }
        }
        self.resets.clear();
        self.line.clear();
        self.ready = false;
    }

    fn save(&self) -> Result<Value, StateError> {
        let (connecting, connections): (Vec<_>, Vec<_>) = self
            .connections
            .values()
            .partition(|c| c.phase == Phase::Connecting);
        let aborted = connecting.iter().map(|c| (c.local_port, c.guest_port));
        let state = VsockState {
            guest_cid: self.config.guest_cid,
            ready: self.ready,
            ready_said: self.ready_said,
            next_port: self.next_port,
            connections: connections.into_iter().map(ConnectionState::of).collect(),
            resets: self.resets.iter().copied().chain(aborted).collect(),
        };
        serde_json::to_value(state).map_err(|source| StateError::Format {
            device: NAME,
            source,
        })
    }

    fn restore(&mut self, state: &Value) -> Result<(), StateError> {
        let invalid = |what| StateError::Invalid { device: NAME, what };
        let state = VsockState::deserialize(state).map_err(|source| StateError::Format {
            device: NAME,
            source,
        })?;
        if state.guest_cid != self.config.guest_cid {
            let ours = self.config.guest_cid;
            return Err(invalid(format!(
                "guest CID {}, not {ours}",
                state.guest_cid
            )));
        }
        let mut connections = BTreeMap::new();
        for record in &state.connections {
            let connection = record.connection().map_err(invalid)?;
            if connections.insert(record.local_port, connection).is_some() {
                return Err(invalid(format!("host port {} twice", record.local_port)));
            }
        }
        self.connections = connections;
        self.resets = state.resets.into();
        self.ready = state.ready;
        self.ready_said = state.ready_said;
        self.next_port = state.next_port;
        self.line.clear();
        for port in self.connections.keys().copied().collect::<Vec<_>>() {
            self.enqueue(port);
        }
        Ok(())
    }
}
