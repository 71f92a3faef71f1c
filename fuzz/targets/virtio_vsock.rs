//! The socket device behind `MmioTransport`: steps of a driver, packets of a guest, and a host that connects, writes,
//! reads and closes.
#![no_main]

use std::os::fd::OwnedFd;

use cloude_fuzz::virtio::{Machine, WRITE};
use cloude_fuzz::{Input, bounded};
use cloude_vmm::devices::virtio::vsock::{HOST_CID, Vsock, VsockConfig};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

const CONFIG: VsockConfig = VsockConfig {
    guest_cid: 3,
    ready_port: 1025,
};
/// The first host port of a device (`FIRST_PORT`).
const FIRST_PORT: u32 = 1 << 30;
/// Streams of one run.
const STREAMS: usize = 4;
const RX: u16 = 0;
const TX: u16 = 1;

fn device() -> Vsock {
    Vsock::new(CONFIG).unwrap()
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

/// A header whose fields are mostly right, followed by a payload, as one buffer of the transmit queue.
fn packet(machine: &mut Machine<Vsock>, input: &mut Input) {
    let (op, stream, flags) = (input.u8(), input.u8(), input.u8());
    let to = match stream {
        255 => CONFIG.ready_port,
        index => FIRST_PORT + u32::from(index % 8),
    };
    let len = input.u16();
    let mut header = [0; 44];
    header[..8].copy_from_slice(&u64::from(CONFIG.guest_cid).to_le_bytes());
    header[8..16].copy_from_slice(&HOST_CID.to_le_bytes());
    header[16..20].copy_from_slice(&1024_u32.to_le_bytes());
    header[20..24].copy_from_slice(&to.to_le_bytes());
    header[24..28].copy_from_slice(&u32::from(len).to_le_bytes());
    header[28] = 1 + flags / 128;
    header[30] = op % 9;
    header[32] = flags % 8;
    header[36..40].copy_from_slice(&(input.u16() as u32).wrapping_mul(16).to_le_bytes());
    header[40..44].copy_from_slice(&u32::from(input.u16()).to_le_bytes());
    machine.poke(0x8000, &header);
    // Sometimes shorter than its header says.
    let there = u32::from(len) * u32::from(flags / 64 != 1);
    machine.describe(TX, 0, (0x8000, 44 + there, 0, 0));
    machine.publish(TX, 0);
}

/// What the host's owner of the streams does.
fn host(machine: &mut Machine<Vsock>, streams: &mut [Option<OwnedFd>; STREAMS], input: &mut Input) {
    let index = usize::from(input.u8()) % STREAMS;
    match input.u8() % 6 {
        0 if streams[index].is_none() => {
            let (ours, theirs) = pair();
            streams[index] = Some(ours);
            let handle = machine.device().device().handle();
            handle.connect(index as u64, 1024, theirs);
        }
        1 => {
            let bytes = vec![b'x'; input.u16().into()];
            if let Some(stream) = &streams[index] {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                // A full or closed stream takes nothing.
                let _ = rustix::net::send(stream, &bytes, flags);
            }
        }
        2 => {
            let mut bytes = vec![0; input.u16().into()];
            if let Some(stream) = &streams[index] {
                let _ = rustix::net::recv(stream, &mut bytes[..], RecvFlags::DONTWAIT);
            }
        }
        3 => {
            if let Some(stream) = &streams[index] {
                let _ = rustix::net::shutdown(stream, Shutdown::Write);
            }
        }
        4 => drop(streams[index].take()),
        _ => {
            let port = FIRST_PORT + u32::from(input.u8() % 8);
            let (ours, theirs) = pair();
            // Refused unless a restored connection has this port and no stream.
            if machine.device().device_mut().attach(port, theirs).is_ok() {
                streams[index] = Some(ours);
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    // Each of at most 12 connections buffers 256 KiB, and a save copies them.
    bounded(16 << 20, || {
        let mut input = Input::new(bytes);
        let mut streams = [const { None }; STREAMS];
        let mut machine = Machine::new(device());
        machine.start(u64::MAX);
        while !input.is_empty() {
            match input.u8() {
                0..64 => host(&mut machine, &mut streams, &mut input),
                64..128 => packet(&mut machine, &mut input),
                128..160 => {
                    let (index, len) = (input.u8().into(), input.u16().into());
                    machine.describe(RX, index, (0x20000, len, WRITE, 0));
                    machine.publish(RX, index);
                }
                _ => machine.step(&mut input, device),
            }
            machine.run();
            machine.device().device().assert_bounded();
            machine.device().device().handle().take_events();
        }
    });
});
