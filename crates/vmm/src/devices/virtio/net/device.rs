//! [`Net`]: its features and configuration, and the work for each event.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use event_manager::EventSet;
use virtio_bindings::virtio_net::*;

use super::denied::Denials;
use super::filter::Filter;
use super::limiter::{Clock, Limiter};
use super::{DeniedReport, EgressSpec, MAX_FRAME, NetLimits, NetState, RXQ, TXQ, tap};
use crate::devices::StateError;
use crate::devices::state::{decode, encode};
use crate::devices::virtio::{
    ActivateError, Chain, RingError, Rings, VirtioDevice, Watch, read_config_bytes,
};

const NAME: &str = "net";
/// Spec section 5.1.1.
const DEVICE_TYPE: u32 = 1;
const QUEUE_SIZES: &[u16] = &[256, 256];

// Feature bits, spec section 5.1.3.
pub(super) const F_CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
pub(super) const F_GUEST_CSUM: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;
pub(super) const F_MTU: u64 = 1 << VIRTIO_NET_F_MTU;
pub(super) const F_MAC: u64 = 1 << VIRTIO_NET_F_MAC;
pub(super) const F_GUEST_TSO4: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4;
pub(super) const F_GUEST_TSO6: u64 = 1 << VIRTIO_NET_F_GUEST_TSO6;
pub(super) const F_HOST_TSO4: u64 = 1 << VIRTIO_NET_F_HOST_TSO4;
pub(super) const F_HOST_TSO6: u64 = 1 << VIRTIO_NET_F_HOST_TSO6;
pub(super) const F_MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

/// The configuration space of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The guest's MAC address. Frames with any other source address are dropped.
    pub mac: [u8; 6],
    /// MTU in bytes, 68 to 65535 (spec section 5.1.4.1).
    pub mtu: u16,
}

/// A network device that cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An ioctl failed. Create the TAP with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    #[error(
        "TUNSETVNETHDRSZ or TUNSETOFFLOAD failed: {0}; is the descriptor a TAP with IFF_VNET_HDR?"
    )]
    NotATap(#[source] io::Error),
    /// timerfd_create failed: see RLIMIT_NOFILE.
    #[error("timerfd_create failed: {0}")]
    Timer(#[source] io::Error),
    /// The spec requires an MTU of at least 68 bytes.
    #[error("the MTU is {0} bytes and must be at least 68")]
    Mtu(u16),
}

/// A virtio-net device.
pub struct Net {
    pub(super) tap: OwnedFd,
    pub(super) config: NetConfig,
    /// True if the descriptor supports offloads, as a TAP does.
    offloads: bool,
    pub(super) features: u64,
    /// Chains popped from the receive queue for the next frames.
    pub(super) rx_ready: VecDeque<Chain>,
    /// Total length of `rx_ready` in bytes.
    pub(super) rx_capacity: usize,
    /// The buffer for a frame that may not fit `rx_ready`.
    pub(super) bounce: Vec<u8>,
    /// The TAP refused the last frame; EPOLLOUT ends the wait.
    pub(super) tx_blocked: bool,
    /// Without it only the source MAC of frames is checked.
    pub(super) filter: Option<Filter>,
    pub(super) limiter: Option<Limiter>,
    pub(super) denials: Denials,
}

/// Indices in [`VirtioDevice::watches`].
const TAP_WATCH: usize = 0;
const TIMER_WATCH: usize = 1;

impl Net {
    /// A device on `tap`, which no other device uses, which has the flags `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR` and is
    /// up.
    pub fn new(tap: OwnedFd, config: NetConfig) -> Result<Self, NetError> {
        if config.mtu < 68 {
            return Err(NetError::Mtu(config.mtu));
        }
        tap::set_header_size(tap.as_fd()).map_err(NetError::NotATap)?;
        tap::set_offload(tap.as_fd(), 0).map_err(NetError::NotATap)?;
        Self::on(tap, config, true)
    }

    /// A device on any descriptor that transfers one frame per call.
    pub(in crate::devices::virtio) fn on(
        tap: OwnedFd,
        config: NetConfig,
        offloads: bool,
    ) -> Result<Self, NetError> {
        tap::set_nonblocking(tap.as_raw_fd()).map_err(NetError::NotATap)?;
        Ok(Self {
            tap,
            config,
            offloads,
            features: 0,
            rx_ready: VecDeque::new(),
            rx_capacity: 0,
            bounce: Vec::new(),
            tx_blocked: false,
            filter: None,
            limiter: None,
            denials: Denials::default(),
        })
    }

    /// Drops and counts every frame of the guest that `spec` does not admit.
    pub fn with_egress(mut self, spec: EgressSpec) -> Self {
        self.filter = Some(Filter::new(self.config.mac, spec));
        self
    }

    /// Delays frames beyond the limits, and drops and counts those of new flows beyond theirs.
    pub fn with_limits(self, limits: &NetLimits) -> Result<Self, NetError> {
        self.with_limits_of(limits, Clock::Monotonic)
    }

    pub(super) fn with_limits_of(
        mut self,
        limits: &NetLimits,
        clock: Clock,
    ) -> Result<Self, NetError> {
        if *limits != NetLimits::default() {
            let limiter = Limiter::new(limits, clock).map_err(|e| NetError::Timer(e.into()))?;
            self.limiter = Some(limiter);
        }
        Ok(self)
    }

    /// The frames of the guest that were dropped so far.
    pub fn denied(&self) -> DeniedReport {
        self.denials.report()
    }

    fn offload_flags(&self) -> u32 {
        [
            (F_GUEST_CSUM, tap::TUN_F_CSUM),
            (F_GUEST_TSO4, tap::TUN_F_TSO4),
            (F_GUEST_TSO6, tap::TUN_F_TSO6),
        ]
        .iter()
        .filter(|(feature, _)| self.features & feature != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

impl VirtioDevice for Net {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let offloads =
            F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6;
        F_MAC | F_MTU | F_MRG_RXBUF | if self.offloads { offloads } else { 0 }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_net_config: mac, status, max_virtqueue_pairs, mtu (spec section 5.1.4).
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.config.mac);
        config[6..8].copy_from_slice(&1u16.to_le_bytes());
        config[8..10].copy_from_slice(&1u16.to_le_bytes());
        config[10..].copy_from_slice(&self.config.mtu.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn activate(&mut self, features: u64) -> Result<(), ActivateError> {
        self.features = features;
        let flags = self.offload_flags();
        if self.offloads {
            tap::set_offload(self.tap.as_fd(), flags)
                .map_err(|source| ActivateError::Offload { flags, source })?;
        }
        self.bounce.resize(MAX_FRAME, 0);
        Ok(())
    }

    fn queue_ready(&mut self, rings: &mut Rings, queue: usize) -> Result<(), RingError> {
        match queue {
            RXQ => self.receive(rings),
            // While the TAP is full, new frames are no reason to try again.
            TXQ if !self.tx_blocked => self.transmit(rings),
            _ => Ok(()),
        }
    }

    fn watches(&self) -> Vec<Watch> {
        let tap = Watch {
            fd: self.tap.as_raw_fd(),
            events: EventSet::IN | EventSet::OUT,
        };
        let timer = self.limiter.as_ref().map(|limiter| Watch {
            fd: limiter.timer_fd(),
            events: EventSet::IN,
        });
        // In the order of TAP_WATCH and TIMER_WATCH.
        [tap].into_iter().chain(timer).collect()
    }

    fn fd_ready(
        &mut self,
        rings: Option<&mut Rings>,
        watch: usize,
        events: EventSet,
    ) -> Result<(), RingError> {
        let timer = watch == TIMER_WATCH;
        if timer && let Some(limiter) = &mut self.limiter {
            limiter.fired();
        }
        let Some(rings) = rings else {
            return Ok(());
        };
        let tap = |event| watch == TAP_WATCH && events.contains(event);
        if (tap(EventSet::OUT) && self.tx_blocked) || (timer && !self.tx_blocked) {
            self.transmit(rings)?;
        }
        if tap(EventSet::IN) || timer {
            self.receive(rings)?;
        }
        Ok(())
    }

    fn pause(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        rings.unpop(RXQ, self.rx_ready.len());
        self.rx_ready.clear();
        self.rx_capacity = 0;
        // The EPOLLOUT edge is not handled while paused.
        self.tx_blocked = false;
        Ok(())
    }

    fn resume(&mut self) {
        // The timer may have fired while the device was paused.
        if let Some(limiter) = &mut self.limiter {
            limiter.fired();
        }
        self.drop_waiting();
    }

    fn reset(&mut self) {
        self.features = 0;
        self.rx_ready.clear();
        self.rx_capacity = 0;
        self.bounce = Vec::new();
        self.tx_blocked = false;
    }

    fn save(&self) -> Result<Vec<u8>, StateError> {
        let state = NetState {
            mac: self.config.mac,
            mtu: self.config.mtu,
        };
        encode(NAME, &state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: NetState = decode(NAME, state)?;
        if state.mtu != self.config.mtu {
            let what = format!("MTU {}, this device has {}", state.mtu, self.config.mtu);
            return Err(StateError::invalid(NAME, what));
        }
        Ok(())
    }
}
