//! [`Vsock`]: its configuration and state, and the one work routine that every event runs.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::EventSet;
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::timerfd::TimerFd;

use super::connection::{Connection, Phase};
use super::handle::{ConnectRequest, Shared};
use super::state::{ConnectionState, VsockState};
use super::{FIRST_PORT, RXQ, TIMEOUT, TXQ, VsockHandle};
use crate::devices::StateError;
use crate::devices::state::{decode, encode};
use crate::devices::virtio::{RingError, Rings, VirtioDevice, Watch, read_config_bytes};

const NAME: &str = "vsock";
/// Spec section 5.10.1.
const DEVICE_TYPE: u32 = 19;
/// Receive, transmit, event.
const QUEUE_SIZES: &[u16] = &[256, 256, 64];
/// The most RST packets that wait for receive buffers. At the limit the device reads no more TX packets, so that
/// a guest which provokes resets and provides no buffers blocks only itself.
pub(super) const RESET_LIMIT: usize = 256;

/// The addresses of the guest and of its ready report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's CID, 3 or more (0 to 2 are reserved, spec section 5.10.4).
    pub guest_cid: u32,
    /// The host port whose connection attempt means that the guest is ready.
    pub ready_port: u32,
}

/// A connection of a restored device, for [`Vsock::attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The id of its connect request.
    pub id: u64,
    /// The host's port, unique per connection.
    pub local_port: u32,
    /// The guest's port.
    pub guest_port: u32,
    /// True if it has a stream.
    pub attached: bool,
    /// True unless it only waits for the guest's RST.
    pub open: bool,
}

/// A stream that cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No connection has this host port: see [`Vsock::connections`].
    #[error("no connection has the host port {0}")]
    NoConnection(u32),
    /// The connection already has a stream.
    #[error("the connection of host port {0} already has a stream")]
    Attached(u32),
    /// epoll refused the descriptor: it is not a socket, or in use by another connection.
    #[error("epoll_ctl failed on the stream of host port {port}: {source}")]
    Watch {
        /// The host port.
        port: u32,
        /// The error of epoll_ctl.
        source: io::Error,
    },
}

/// A virtio-vsock device.
pub struct Vsock {
    pub(super) config: VsockConfig,
    pub(super) shared: Arc<Shared>,
    /// Watches the streams, the timer and the handle's eventfd. The event loop watches only this descriptor, so
    /// that streams can be added on any thread.
    pub(super) epoll: Epoll,
    pub(super) timer: TimerFd,
    /// How long the guest may take to answer a connect or a shutdown.
    pub(super) timeout: Duration,
    /// The deadline that the timer is set to.
    pub(super) timer_set: Option<Instant>,
    /// By host port.
    pub(super) connections: BTreeMap<u32, Connection>,
    /// Ended for the guest, with bytes still buffered for the stream. By host port.
    pub(super) draining: BTreeMap<u32, Connection>,
    /// Connects that wait for the guest to report ready.
    pub(super) waiting: VecDeque<ConnectRequest>,
    /// RST packets to send: host port, guest port.
    pub(super) resets: VecDeque<(u32, u32)>,
    /// Host ports of connections with a packet for the guest, each once.
    pub(super) rx_pending: VecDeque<u32>,
    pub(super) next_port: u32,
    pub(super) ready: bool,
    pub(super) ready_reported: bool,
}

impl Vsock {
    /// A device that reports events through [`Vsock::handle`].
    pub fn new(config: VsockConfig) -> io::Result<Self> {
        let device = Self {
            config,
            shared: Arc::new(Shared::new()?),
            epoll: Epoll::new()?,
            timer: TimerFd::new().map_err(io::Error::from)?,
            timeout: TIMEOUT,
            timer_set: None,
            connections: BTreeMap::new(),
            draining: BTreeMap::new(),
            waiting: VecDeque::new(),
            resets: VecDeque::new(),
            rx_pending: VecDeque::new(),
            next_port: FIRST_PORT,
            ready: false,
            ready_reported: false,
        };
        device.watch_event_and_timer()?;
        Ok(device)
    }

    /// The handle for connects and events.
    pub fn handle(&self) -> VsockHandle {
        VsockHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The guest's connections.
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

    /// The reason why a save would now lose a connect or bytes: streams are not part of the state. Call it while
    /// the device is paused.
    pub fn busy(&self) -> Option<&'static str> {
        let requested = self.shared.has_requests() || !self.waiting.is_empty();
        if requested || self.has(|c| c.phase == Phase::Connecting) {
            return Some("a connect is pending");
        }
        if !self.draining.is_empty() || self.has(|c| !c.buffer.is_empty()) {
            return Some("bytes from the guest are buffered for the host");
        }
        if self.has(Connection::stream_has_bytes) {
            return Some("bytes from the host are not yet read by the guest");
        }
        None
    }

    fn has(&self, what: impl Fn(&Connection) -> bool) -> bool {
        self.connections.values().any(what)
    }

    /// Gives a restored connection its stream, a connected stream socket. Bytes that the guest has sent in the
    /// meantime are written to it first.
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
            // Applies a shutdown of the guest to the new stream.
            connection.guest_shut_down(0);
        }
        self.after_flush(local_port);
        self.enqueue(local_port);
        self.shared.kick();
        Ok(())
    }

    /// Does all work that is possible now.
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
        // Delivers the TX packets to their streams: a restored device has no streams.
        self.work(Some(rings))
    }

    fn reset(&mut self) {
        for (_, connection) in std::mem::take(&mut self.connections) {
            if connection.phase == Phase::Connecting {
                self.connect_failed(connection.id, "the guest reset its vsock device");
            } else if !connection.buffer.is_empty() && connection.stream.is_some() {
                // Bytes that the guest sent before the reset still go to the stream.
                self.draining.insert(connection.local_port, connection);
            }
        }
        self.resets.clear();
        self.rx_pending.clear();
        self.ready = false;
    }

    fn save(&self) -> Result<Vec<u8>, StateError> {
        let (connecting, connections): (Vec<_>, Vec<_>) = self
            .connections
            .values()
            .partition(|c| c.phase == Phase::Connecting);
        let aborted = connecting.iter().map(|c| (c.local_port, c.guest_port));
        let state = VsockState {
            guest_cid: self.config.guest_cid,
            ready: self.ready,
            ready_reported: self.ready_reported,
            next_port: self.next_port,
            connections: connections.into_iter().map(ConnectionState::of).collect(),
            resets: self.resets.iter().copied().chain(aborted).collect(),
        };
        encode(NAME, &state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let invalid = |what: String| StateError::invalid(NAME, what);
        let state: VsockState = decode(NAME, state)?;
        if state.guest_cid != self.config.guest_cid {
            let ours = self.config.guest_cid;
            return Err(invalid(format!(
                "guest CID {}, this device has {ours}",
                state.guest_cid
            )));
        }
        let mut connections = BTreeMap::new();
        for saved in state.connections {
            let port = saved.local_port;
            let connection = saved.into_connection().map_err(invalid)?;
            if connections.insert(port, connection).is_some() {
                return Err(invalid(format!("two connections of host port {port}")));
            }
        }
        self.connections = connections;
        self.resets = state.resets.into();
        self.ready = state.ready;
        self.ready_reported = state.ready_reported;
        self.next_port = state.next_port;
        self.rx_pending.clear();
        for port in self.connections.keys().copied().collect::<Vec<_>>() {
            self.enqueue(port);
        }
        Ok(())
    }
}
