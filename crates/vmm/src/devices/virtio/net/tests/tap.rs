//! The device on a real TAP, which needs root.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use super::*;

// linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// A TAP that is up, has an address on the host, and disappears with its descriptor.
fn tap(name: &str, address: &str) -> OwnedFd {
    let path = "/dev/net/tun";
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{path}: {error}; run the tests as root"));
    // SAFETY: ifreq is plain data, and all bytes zero are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name_bytes = CString::new(name).unwrap();
    for (to, from) in request.ifr_name.iter_mut().zip(name_bytes.as_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the ioctl uses one ifreq, which outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &request) };
    assert_eq!(
        made,
        0,
        "TUNSETIFF: {}; run the tests as root",
        io::Error::last_os_error()
    );
    ip(&["link", "set", name, "addrgenmode", "none"]);
    ip(&["addr", "add", address, "dev", name]);
    ip(&["link", "set", name, "up"]);
    file.into()
}

fn ip(args: &[&str]) {
    let status = Command::new("ip")
        .args(args)
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {args:?}");
}

#[test]
fn a_datagram_and_its_answer_pass_through_a_tap() {
    let name = format!("cvt{}", std::process::id() % 1_000_000);
    let device = Net::new(tap(&name, "198.51.100.1/30"), CONFIG).unwrap();
    let mut driver = Driver::started(device);
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    ip(&["neigh", "add", "198.51.100.2", "lladdr", &mac, "dev", &name]);
    for slot in 0..32 {
        driver.submit(RXQ, &[(RX_AREA + slot * 0x10000, 4096, true)]);
    }

    let socket = UdpSocket::bind("198.51.100.1:0").unwrap();
    socket
        .send_to(b"over the tap", "198.51.100.2:7777")
        .unwrap();
    let datagram = loop {
        driver.run();
        let Some((head, len)) = driver.used(RXQ) else {
            driver.wait(-1);
            continue;
        };
        let mut bytes = vec![0; len as usize];
        let at = GuestAddress(RX_AREA + u64::from(head) * 0x10000);
        driver.memory.read_slice(&mut bytes, at).unwrap();
        if bytes.ends_with(b"over the tap") {
            break bytes;
        }
    };
    assert_eq!(datagram[HEADER..HEADER + 6], MAC);

    // The answer swaps source and destination, which keeps both checksums valid. UDP's is optional, and the kernel may
    // have left it to the offload.
    let mut answer = datagram;
    answer[..HEADER].fill(0);
    let (ethernet, ip_header, udp) = (HEADER, HEADER + 14, HEADER + 34);
    answer.copy_within(ethernet + 6..ethernet + 12, ethernet);
    answer[ethernet + 6..ethernet + 12].copy_from_slice(&MAC);
    swap(&mut answer[ip_header + 12..ip_header + 20]);
    swap(&mut answer[udp..udp + 4]);
    answer[udp + 6..udp + 8].fill(0);
    driver
        .memory
        .write_slice(&answer, GuestAddress(TX_AREA))
        .unwrap();
    driver.submit(TXQ, &[(TX_AREA, answer.len() as u32, false)]);
    let mut got = [0; 64];
    let (len, from) = socket.recv_from(&mut got).unwrap();
    assert_eq!(&got[..len], b"over the tap");
    assert_eq!(from.to_string(), "198.51.100.2:7777");
}

fn swap(halves: &mut [u8]) {
    let middle = halves.len() / 2;
    halves.rotate_left(middle);
}
