//! Frames, and the MAC addresses of links.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use super::namespace::output;

/// A UDP packet as a VM sends it: virtio-net header, Ethernet, IPv4, UDP.
pub fn udp(from_mac: [u8; 6], to_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let payload = b"hello";
    let mut ip = vec![
        0x45,
        0,
        0,
        (28 + payload.len()) as u8,
        0,
        0,
        0,
        0,
        64,
        17,
        0,
        0,
    ];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum: u32 = ip
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded + (folded >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0; 10];
    frame.extend(to_mac);
    frame.extend(from_mac);
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    frame.extend(9999_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    // A UDP checksum of 0 is none (RFC 768).
    frame.extend([0, (8 + payload.len()) as u8, 0, 0]);
    frame.extend(payload);
    frame
}

pub fn mac_of(link: &str) -> [u8; 6] {
    let text = output("ip", &["-brief", "link", "show", link]);
    let mac = text.split_whitespace().nth(2).unwrap();
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}
