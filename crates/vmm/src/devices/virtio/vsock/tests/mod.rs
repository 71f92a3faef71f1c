//! The device with a simulated guest driver on its queues.

mod closing;
mod connecting;
mod credit;
mod flow;
mod restoring;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, GuestAddress};

use super::header::{HEADER_SIZE, Header, TYPE_STREAM, op};
use super::{RXQ, TXQ, Vsock, VsockConfig, VsockEvent, VsockHandle};
use crate::devices::virtio::testing::{Driver, RING_SIZE};

const CID: u32 = 42;
const READY_PORT: u32 = 999;
const GUEST_PORT: u32 = 80;
/// The guest's `buf_alloc` unless a test sets another.
const GUEST_BUFFER: u32 = 256 * 1024;

const CONFIG: VsockConfig = VsockConfig {
    guest_cid: CID,
    ready_port: READY_PORT,
};
const RX_AREA: u64 = 0x100_0000;
const TX_AREA: u64 = 0x200_0000;
/// The size that Linux's driver uses.
const RX_BUFFER: u32 = 4096;

struct Guest {
    driver: Driver<Vsock>,
    events: VecDeque<VsockEvent>,
    handle: VsockHandle,
    /// Guest address of the receive buffer of each head.
    rx_at: BTreeMap<u16, u64>,
    packets: VecDeque<(Header, Vec<u8>)>,
    /// Bytes that the guest's program has read.
    fwd_cnt: u32,
    buf_alloc: u32,
}

fn vsock() -> Vsock {
    Vsock::new(CONFIG).unwrap()
}

impl Guest {
    /// A guest after DRIVER_OK, with receive buffers.
    fn started() -> Self {
        let mut guest = Self::without_buffers();
        for slot in 0..u64::from(RING_SIZE / 2) {
            guest.give_buffer(RX_AREA + slot * 0x10000);
        }
        guest
    }

    fn without_buffers() -> Self {
        let device = vsock();
        let handle = device.handle();
        Self {
            driver: Driver::started(device),
            events: VecDeque::new(),
            handle,
            rx_at: BTreeMap::new(),
            packets: VecDeque::new(),
            fwd_cnt: 0,
            buf_alloc: GUEST_BUFFER,
        }
    }

    /// A guest that has reported ready, with one connection: its host socket and host port.
    fn connected() -> (Self, UnixStream, u32) {
        let mut guest = Self::started();
        guest.report_ready();
        let (stream, port) = guest.accept(1);
        (guest, stream, port)
    }

    fn give_buffer(&mut self, at: u64) {
        let header = HEADER_SIZE as u32;
        let head = self.driver.add(
            RXQ,
            &[(at, header, true), (at + 44, RX_BUFFER - header, true)],
        );
        self.rx_at.insert(head, at);
    }

    /// The next event of the device.
    fn event(&mut self) -> Option<VsockEvent> {
        self.events.extend(self.handle.take_events());
        self.events.pop_front()
    }

    fn report_ready(&mut self) {
        self.send(Header {
            dst_port: READY_PORT,
            src_port: 5000,
            op: op::REQUEST,
            ..self.base()
        });
        assert_eq!(self.next().0.op, op::RST);
        assert_eq!(self.event(), Some(VsockEvent::Ready));
    }

    /// Connects from the host and accepts as the guest.
    fn accept(&mut self, id: u64) -> (UnixStream, u32) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        self.handle.connect(id, GUEST_PORT, theirs.into());
        let (request, _) = self.next();
        assert_eq!((request.op, request.dst_port), (op::REQUEST, GUEST_PORT));
        self.answer(request.src_port, op::RESPONSE);
        assert_eq!(self.event(), Some(VsockEvent::Connected(id)));
        (ours, request.src_port)
    }

    fn base(&self) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: 2,
            src_port: GUEST_PORT,
            kind: TYPE_STREAM,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
            ..Header::default()
        }
    }

    /// Sends a packet without payload on a connection.
    fn answer(&mut self, port: u32, op: u16) {
        self.send(Header {
            dst_port: port,
            op,
            ..self.base()
        });
    }

    fn shut_down(&mut self, port: u32, flags: u32) {
        self.send(Header {
            dst_port: port,
            op: op::SHUTDOWN,
            flags,
            ..self.base()
        });
    }

    fn send(&mut self, header: Header) {
        self.send_bytes(header, &[]);
    }

    fn send_data(&mut self, port: u32, data: &[u8]) {
        let header = Header {
            dst_port: port,
            op: op::RW,
            len: data.len() as u32,
            ..self.base()
        };
        self.send_bytes(header, data);
    }

    /// Sends the payload in two descriptors.
    fn send_bytes(&mut self, header: Header, data: &[u8]) {
        let half = data.len() / 2;
        let memory = &self.driver.memory;
        memory
            .write_slice(&header.to_bytes(), GuestAddress(TX_AREA))
            .unwrap();
        memory
            .write_slice(data, GuestAddress(TX_AREA + 0x1000))
            .unwrap();
        let mut buffers = vec![(TX_AREA, HEADER_SIZE as u32, false)];
        if !data.is_empty() {
            buffers.push((TX_AREA + 0x1000, half as u32, false));
            buffers.push((
                TX_AREA + 0x1000 + half as u64,
                (data.len() - half) as u32,
                false,
            ));
        }
        // Reclaims used descriptors, so that the ring never runs full.
        while self.driver.used(TXQ).is_some() {}
        self.driver.submit(TXQ, &buffers);
    }

    /// Collects the packets of the receive queue and makes their buffers available again.
    fn poll(&mut self) {
        self.driver.run();
        while let Some((head, len)) = self.driver.used(RXQ) {
            let at = self.rx_at.remove(&head).unwrap();
            let mut bytes = vec![0; len as usize];
            self.driver
                .memory
                .read_slice(&mut bytes, GuestAddress(at))
                .unwrap();
            let header = Header::from_bytes(bytes[..HEADER_SIZE].try_into().unwrap());
            assert_eq!((header.src_cid, header.dst_cid), (2, CID.into()));
            assert_eq!(header.len as usize, bytes.len() - HEADER_SIZE);
            self.packets
                .push_back((header, bytes.split_off(HEADER_SIZE)));
            self.give_buffer(at);
            self.driver.notify(RXQ);
        }
    }

    fn try_next(&mut self) -> Option<(Header, Vec<u8>)> {
        self.poll();
        self.packets.pop_front()
    }

    fn next(&mut self) -> (Header, Vec<u8>) {
        self.try_next().expect("the device has sent a packet")
    }

    /// The payload of all pending RW packets, and the operations of the others.
    fn drain(&mut self) -> (Vec<u8>, Vec<u16>) {
        let (mut data, mut ops) = (Vec::new(), Vec::new());
        while let Some((header, payload)) = self.try_next() {
            if header.op == op::RW {
                data.extend(payload);
            } else {
                ops.push(header.op);
            }
        }
        (data, ops)
    }

    /// Attaches a stream to a restored connection and returns its host socket.
    fn attach(&self, port: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut transport = self.driver.device();
        transport.device_mut().attach(port, theirs.into()).unwrap();
        ours
    }

    /// Restores the device's state into a new device with the same guest memory.
    fn restored(self) -> Self {
        let device = vsock();
        let handle = device.handle();
        Self {
            driver: self.driver.move_to(device),
            events: VecDeque::new(),
            handle,
            ..self
        }
    }
}

/// Bytes that depend on their position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}
