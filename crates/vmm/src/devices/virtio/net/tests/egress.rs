//! The egress filter: frames that a hostile guest sends.

use std::net::{IpAddr, Ipv4Addr};

use super::super::spec::{DeniedCount, DenyReason, EgressSpec, Protocol};
use super::*;

const ME: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
const OTHER_VM: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 6);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(8, 8, 4, 4);
/// An address of the host that is not in a private network.
const HOST: Ipv4Addr = Ipv4Addr::new(81, 2, 69, 142);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const GATEWAY_MAC: [u8; 6] = [0x02, 0xc1, 172, 30, 0, 1];
const OTHER_MAC: [u8; 6] = [0x02, 0xc1, 172, 30, 0, 6];
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;
const ACK: u8 = 16;
const RST: u8 = 4;

fn spec() -> EgressSpec {
    let networks = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
    EgressSpec {
        address: ME,
        gateway: GATEWAY,
        gateway_mac: GATEWAY_MAC,
        outbound: true,
        never: networks(&["172.30.0.0/16", "81.2.69.142/32"]),
        allow: networks(&["10.7.0.0/16", "172.30.0.0/24"]),
        deny: networks(&[
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ]),
        dns: vec![DNS],
        deny_ports: vec![25],
    }
}

fn confined(spec: EgressSpec) -> Guest {
    let (device, wire) = net();
    Guest::on((device.with_egress(spec), wire), u64::MAX)
}

/// Ethernet from the guest to the gateway.
fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = GATEWAY_MAC.to_vec();
    frame.extend(MAC);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet. `fragment` is the field with flags and offset. The device reads no checksum.
fn packet(source: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let total = 20 + payload.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, protocol, 0, 0]);
    ip.extend(source.octets());
    ip.extend(to.octets());
    ip.extend(payload);
    ethernet(0x0800, &ip)
}

fn tcp_header(port: u16, flags: u8) -> Vec<u8> {
    let mut header = 40_000_u16.to_be_bytes().to_vec();
    header.extend(port.to_be_bytes());
    header.extend([0; 8]);
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn tcp(to: Ipv4Addr, port: u16, flags: u8) -> Vec<u8> {
    packet(ME, to, TCP, 0, &tcp_header(port, flags))
}

fn udp_header(port: u16) -> Vec<u8> {
    let mut header = 40_000_u16.to_be_bytes().to_vec();
    header.extend(port.to_be_bytes());
    header.extend([0, 8, 0, 0]);
    header
}

fn udp(to: Ipv4Addr, port: u16) -> Vec<u8> {
    packet(ME, to, UDP, 0, &udp_header(port))
}

fn arp(operation: u16, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4];
    arp.extend(operation.to_be_bytes());
    arp.extend(sender_mac);
    arp.extend(sender.octets());
    arp.extend([0; 6]);
    arp.extend(target.octets());
    let mut frame = ethernet(0x0806, &arp);
    frame[..6].fill(0xff);
    frame
}

impl Guest {
    /// Sends a frame, and returns true if it was sent on unchanged.
    fn passes(&mut self, frame: &[u8]) -> bool {
        self.passes_with([0; HEADER], frame)
    }

    fn passes_with(&mut self, header: [u8; HEADER], frame: &[u8]) -> bool {
        self.send_with(header, frame);
        assert!(
            self.driver.used(TXQ).is_some(),
            "the buffer is not returned"
        );
        let sent = self.on_wire();
        if let Some(bytes) = &sent {
            assert_eq!(bytes[HEADER..], *frame);
        }
        sent.is_some()
    }

    fn denied(&self) -> Vec<DeniedCount> {
        self.driver.device().device().denied().counts
    }
}

/// Sends each frame, which must be dropped and counted with the reason.
fn all_denied(spec: EgressSpec, frames: &[(&str, Vec<u8>, DenyReason)]) {
    for (case, frame, reason) in frames {
        let mut guest = confined(spec.clone());
        assert!(!guest.passes(frame), "{case}");
        let denied = guest.denied();
        let reasons: Vec<_> = denied.iter().map(|count| count.denial.reason).collect();
        assert_eq!(reasons, [*reason], "{case}: {denied:?}");
    }
}

fn all_pass(spec: EgressSpec, frames: &[(&str, Vec<u8>)]) {
    let mut guest = confined(spec);
    for (case, frame) in frames {
        assert!(guest.passes(frame), "{case}: {:?}", guest.denied());
    }
    assert_eq!(guest.denied(), []);
}

#[test]
fn ordinary_traffic_passes() {
    all_pass(
        spec(),
        &[
            ("TCP", tcp(PUBLIC, 443, SYN)),
            ("UDP", udp(PUBLIC, 443)),
            (
                "ICMP echo",
                packet(ME, PUBLIC, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1]),
            ),
            ("IPv4 in IPv4", packet(ME, PUBLIC, 4, 0, &[0x45; 40])),
            (
                "an exception of the operator",
                tcp(Ipv4Addr::new(10, 7, 1, 1), 80, SYN),
            ),
            ("DNS over UDP", udp(DNS, 53)),
            ("DNS over TCP", tcp(DNS, 53, SYN)),
            ("ARP for the gateway", arp(1, MAC, ME, GATEWAY)),
            ("gratuitous ARP for itself", arp(1, MAC, ME, ME)),
            ("an ARP reply to the gateway", arp(2, MAC, ME, GATEWAY)),
            (
                "the next address after a denied network",
                tcp(Ipv4Addr::new(11, 0, 0, 0), 80, SYN),
            ),
            (
                "padding after the packet",
                [udp(PUBLIC, 53), vec![0; 18]].concat(),
            ),
        ],
    );
}

#[test]
fn a_spoofed_source_is_dropped() {
    let mut other_mac = tcp(PUBLIC, 443, SYN);
    other_mac[6..12].copy_from_slice(&OTHER_MAC);
    let mut arp_mac = arp(1, MAC, ME, GATEWAY);
    arp_mac[6..12].copy_from_slice(&OTHER_MAC);
    let source = DenyReason::Source;
    all_denied(
        spec(),
        &[
            ("MAC", other_mac, source),
            (
                "IP",
                packet(OTHER_VM, PUBLIC, UDP, 0, &udp_header(53)),
                source,
            ),
            (
                "IP of the gateway",
                packet(GATEWAY, PUBLIC, UDP, 0, &udp_header(53)),
                source,
            ),
            (
                "no IP, as of DHCP",
                packet(
                    Ipv4Addr::UNSPECIFIED,
                    Ipv4Addr::BROADCAST,
                    UDP,
                    0,
                    &udp_header(67),
                ),
                source,
            ),
            ("MAC of an ARP frame", arp_mac, source),
            ("MAC in ARP", arp(1, OTHER_MAC, ME, GATEWAY), source),
            ("IP in ARP", arp(2, MAC, OTHER_VM, GATEWAY), source),
            (
                "the gateway's IP in ARP",
                arp(2, MAC, GATEWAY, OTHER_VM),
                source,
            ),
            (
                "gratuitous ARP for another",
                arp(1, MAC, OTHER_VM, OTHER_VM),
                source,
            ),
            ("ARP probe", arp(1, MAC, Ipv4Addr::UNSPECIFIED, ME), source),
        ],
    );
}

#[test]
fn denied_destinations_are_dropped() {
    let to = |address: [u8; 4]| tcp(address.into(), 80, SYN);
    let mut to_another_mac = tcp(PUBLIC, 443, SYN);
    to_another_mac[..6].copy_from_slice(&OTHER_MAC);
    let mut to_all = tcp(PUBLIC, 443, SYN);
    to_all[..6].fill(0xff);
    let reason = DenyReason::Destination;
    all_denied(
        spec(),
        &[
            ("metadata service", tcp(METADATA, 80, SYN), reason),
            ("10.0.0.0/8", to([10, 1, 2, 3]), reason),
            (
                "the last address of 10.0.0.0/8",
                to([10, 255, 255, 255]),
                reason,
            ),
            ("172.16.0.0/12", to([172, 20, 0, 1]), reason),
            ("192.168.0.0/16", to([192, 168, 1, 1]), reason),
            ("shared addresses", to([100, 64, 0, 1]), reason),
            ("loopback", to([127, 0, 0, 1]), reason),
            ("this network", to([0, 0, 0, 0]), reason),
            (
                "multicast",
                udp(Ipv4Addr::new(224, 0, 0, 251), 5353),
                reason,
            ),
            ("broadcast", udp(Ipv4Addr::BROADCAST, 67), reason),
            ("reserved", to([240, 0, 0, 1]), reason),
            ("gateway", tcp(GATEWAY, 22, SYN), reason),
            ("gateway over UDP", udp(GATEWAY, 53), reason),
            (
                "gateway over ICMP",
                packet(ME, GATEWAY, 1, 0, &[8, 0, 0, 0]),
                reason,
            ),
            (
                "another VM in an allowed network",
                tcp(OTHER_VM, 1024, SYN),
                reason,
            ),
            ("a public address of the host", tcp(HOST, 22, SYN), reason),
            ("another port of a name server", tcp(DNS, 80, SYN), reason),
            (
                "another protocol of a name server",
                packet(ME, DNS, 132, 0, &udp_header(53).repeat(2)),
                reason,
            ),
            ("another machine's MAC", to_another_mac, reason),
            ("the broadcast MAC", to_all, reason),
            ("ARP for another VM", arp(1, MAC, ME, OTHER_VM), reason),
        ],
    );
}

#[test]
fn protocols_other_than_arp_and_ipv4_are_dropped() {
    let ipv6 = |to: u8| {
        let mut payload = vec![0x60, 0, 0, 0, 0, 0, 58, 255];
        payload.extend([0xfe; 16]);
        payload.extend([to; 16]);
        ethernet(0x86dd, &payload)
    };
    let inner = tcp(PUBLIC, 443, SYN);
    let protocol = DenyReason::Protocol;
    all_denied(
        spec(),
        &[
            (
                "a VLAN tag",
                ethernet(0x8100, &[&[0, 1], &inner[12..]].concat()),
                protocol,
            ),
            (
                "a provider VLAN tag",
                ethernet(0x88a8, &[&[0, 1], &inner[12..]].concat()),
                protocol,
            ),
            ("IPv6", ipv6(0x20), protocol),
            ("LLDP", ethernet(0x88cc, &[0; 46]), protocol),
            (
                "a length of IEEE 802.3, as spanning tree has",
                ethernet(38, &[0x42; 46]),
                protocol,
            ),
            ("a test protocol", frame(MAC, 100), protocol),
        ],
    );
    // A router advertisement, which goes to a multicast address like what every kernel with IPv6 sends.
    let mut guest = confined(spec());
    assert!(!guest.passes(&ipv6(0xff)));
    assert_eq!(guest.denied(), []);
}

#[test]
fn headers_that_hide_something_are_dropped() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = tcp(PUBLIC, 443, SYN);
        change(&mut frame);
        frame
    };
    let mut options = packet(
        ME,
        PUBLIC,
        TCP,
        0,
        &[&[7, 3, 4, 0][..], &tcp_header(443, SYN)].concat(),
    );
    options[14] = 0x46;
    let malformed = DenyReason::Malformed;
    all_denied(
        spec(),
        &[
            ("IP options", options, malformed),
            ("IP version 6", with(&|f| f[14] = 0x65), malformed),
            ("a short IP header", with(&|f| f[14] = 0x44), malformed),
            (
                "a length beyond the frame",
                with(&|f| f[17] = 41),
                malformed,
            ),
            (
                "a length below the header",
                with(&|f| f[17] = 19),
                malformed,
            ),
            (
                "a TCP header beyond the length",
                with(&|f| f[17] = 39),
                malformed,
            ),
            (
                "a truncated IP header",
                with(&|f| f.truncate(33)),
                malformed,
            ),
            ("no IP header", ethernet(0x0800, &[]), malformed),
            (
                "a truncated TCP header",
                packet(ME, PUBLIC, TCP, 0, &[0; 19]),
                malformed,
            ),
            (
                "a truncated UDP header",
                packet(ME, PUBLIC, UDP, 0, &[0; 7]),
                malformed,
            ),
            (
                "ports only in the padding",
                [packet(ME, PUBLIC, UDP, 0, &[]), udp_header(53)].concat(),
                malformed,
            ),
            (
                "a truncated ARP packet",
                ethernet(0x0806, &[0, 1, 8, 0, 6, 4]),
                malformed,
            ),
            (
                "ARP of another address size",
                ethernet(0x0806, &[0, 1, 8, 0, 6, 16, 0, 1].repeat(5)),
                malformed,
            ),
            ("RARP in ARP", arp(3, MAC, ME, GATEWAY), malformed),
        ],
    );
}

#[test]
fn port_25_is_dropped_everywhere() {
    let port = DenyReason::Port;
    all_denied(
        spec(),
        &[
            ("TCP", tcp(PUBLIC, 25, SYN), port),
            ("UDP", udp(PUBLIC, 25), port),
            (
                "in an allowed network",
                tcp(Ipv4Addr::new(10, 7, 0, 1), 25, SYN),
                port,
            ),
            (
                "the first fragment",
                packet(ME, PUBLIC, TCP, 0x2000, &tcp_header(25, SYN)),
                port,
            ),
        ],
    );
    all_pass(spec(), &[("port 587", tcp(PUBLIC, 587, SYN))]);
}

#[test]
fn fragments_cannot_hide_a_port_or_a_destination() {
    all_denied(
        spec(),
        &[
            (
                "a first fragment without the TCP header",
                packet(ME, PUBLIC, TCP, 0x2000, &tcp_header(25, SYN)[..8]),
                DenyReason::Malformed,
            ),
            (
                "a second one that overwrites it",
                packet(ME, PUBLIC, TCP, 1, &[0; 16]),
                DenyReason::Malformed,
            ),
            (
                "a later one to a denied address",
                packet(ME, METADATA, UDP, 185, &[0; 16]),
                DenyReason::Destination,
            ),
            (
                "a later one to a name server",
                packet(ME, DNS, UDP, 185, &[0; 16]),
                DenyReason::Destination,
            ),
            (
                "an answer to the gateway",
                packet(ME, GATEWAY, TCP, 0x2000, &tcp_header(40_000, ACK)),
                DenyReason::Destination,
            ),
        ],
    );
    all_pass(
        spec(),
        &[
            (
                "a first fragment",
                packet(ME, PUBLIC, UDP, 0x2000, &udp_header(443)),
            ),
            ("a later fragment", packet(ME, PUBLIC, UDP, 185, &[0; 100])),
        ],
    );
}

#[test]
fn without_outbound_only_answers_to_the_host_pass() {
    let offline = EgressSpec {
        outbound: false,
        ..spec()
    };
    let reason = DenyReason::Destination;
    all_pass(
        offline.clone(),
        &[
            ("SYN and ACK", tcp(GATEWAY, 40_001, SYN | ACK)),
            ("data", tcp(GATEWAY, 40_001, ACK)),
            ("RST", tcp(GATEWAY, 40_001, RST)),
            ("ARP", arp(1, MAC, ME, GATEWAY)),
        ],
    );
    all_denied(
        offline,
        &[
            ("SYN", tcp(GATEWAY, 22, SYN), reason),
            ("SYN and RST", tcp(GATEWAY, 22, SYN | RST), reason),
            ("no flag", tcp(GATEWAY, 22, 0), reason),
            ("the internet", tcp(PUBLIC, 443, SYN), reason),
            ("an answer to the internet", tcp(PUBLIC, 443, ACK), reason),
            ("DNS", udp(DNS, 53), reason),
            (
                "an allowed network",
                tcp(Ipv4Addr::new(10, 7, 1, 1), 80, SYN),
                reason,
            ),
            ("another address of the host", tcp(HOST, 22, ACK), reason),
        ],
    );
}

/// A virtio header with NEEDS_CSUM and these fields.
fn offload(gso_type: u8, gso_size: u16, start: u16, offset: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = 1;
    header[1] = gso_type;
    header[4..6].copy_from_slice(&gso_size.to_le_bytes());
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header
}

#[test]
fn checksum_and_segmentation_offload_pass() {
    let mut guest = confined(spec());
    let large = packet(
        ME,
        PUBLIC,
        TCP,
        0,
        &[tcp_header(443, ACK), vec![7; 60_000]].concat(),
    );
    assert!(guest.passes_with(offload(1, 1448, 34, 16), &large));
    assert!(guest.passes_with(offload(0, 0, 34, 16), &tcp(PUBLIC, 443, ACK)));
    assert!(guest.passes_with(offload(0, 0, 34, 6), &udp(PUBLIC, 53)));
    assert_eq!(guest.denied(), []);
}

#[test]
fn a_checksum_offset_into_the_ip_header_is_dropped() {
    // The kernel would write the checksum over the destination after its firewall has read it.
    let mut no_checksum = offload(1, 1448, 34, 16);
    no_checksum[0] = 0;
    for (case, header) in [
        ("the destination", offload(0, 0, 20, 10)),
        ("the source", offload(0, 0, 14, 12)),
        ("the ports", offload(0, 0, 34, 2)),
        ("the checksum of UDP in TCP", offload(0, 0, 34, 6)),
        ("segments of UDP", offload(3, 1448, 34, 16)),
        ("segments of TCP over IPv6", offload(4, 1448, 34, 16)),
        ("segments of no size", offload(1, 0, 34, 16)),
        ("segments without a checksum", no_checksum),
    ] {
        let mut guest = confined(spec());
        assert!(!guest.passes_with(header, &tcp(PUBLIC, 443, ACK)), "{case}");
        assert_eq!(
            guest.denied()[0].denial.reason,
            DenyReason::Malformed,
            "{case}"
        );
    }
    let mut guest = confined(spec());
    let fragment = packet(ME, PUBLIC, TCP, 0x2000, &tcp_header(443, ACK));
    assert!(!guest.passes_with(offload(0, 0, 34, 16), &fragment));
    assert!(!guest.passes_with(offload(0, 0, 20, 4), &arp(1, MAC, ME, GATEWAY)));
}

#[test]
fn denied_frames_are_counted_by_destination() {
    let mut guest = confined(spec());
    for _ in 0..3 {
        guest.passes(&tcp(METADATA, 80, SYN));
    }
    guest.passes(&udp(GATEWAY, 53));
    let denied = guest.denied();
    let seen: Vec<_> = denied
        .iter()
        .map(|count| {
            let denial = count.denial;
            (denial.address, denial.port, denial.protocol, count.times)
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Some(IpAddr::V4(METADATA)), Some(80), Protocol::Ip(TCP), 3),
            (Some(IpAddr::V4(GATEWAY)), Some(53), Protocol::Ip(UDP), 1),
        ]
    );
    assert_eq!(denied[0].denial.protocol.to_string(), "tcp");
}

#[test]
fn the_default_spec_admits_no_packet() {
    let offline = EgressSpec::default();
    let reason = DenyReason::Source;
    all_denied(
        offline,
        &[
            ("the internet", tcp(PUBLIC, 443, SYN), reason),
            ("an answer", tcp(GATEWAY, 40_001, ACK), reason),
        ],
    );
}

#[test]
fn headers_split_over_descriptors_are_checked() {
    let mut guest = confined(spec());
    for (frame, passes) in [
        (tcp(METADATA, 80, SYN), false),
        (tcp(PUBLIC, 80, SYN), true),
    ] {
        let bytes = wired(&frame);
        let area = GuestAddress(TX_AREA);
        guest.driver.memory.write_slice(&bytes, area).unwrap();
        let buffers: Vec<_> = (0..bytes.len())
            .map(|at| (TX_AREA + at as u64, 1, false))
            .take(30)
            .chain([(TX_AREA + 30, bytes.len() as u32 - 30, false)])
            .collect();
        guest.driver.submit(TXQ, &buffers);
        guest.driver.used(TXQ);
        assert_eq!(guest.on_wire().is_some(), passes);
    }
}
