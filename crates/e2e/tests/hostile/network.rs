//! Programs with a network, which may reach the internet and nothing else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use cloude_e2e::backend::BRIDGE_ADDRESS;
use cloude_e2e::cloude::LONGEST;
use cloude_e2e::host;

use crate::case::{Case, case, run, shared, still_serves};

const NETWORK: &[&str] = &["--timeout", LONGEST, "--network"];

/// A listener of the host at `address`, which the case gives to the host first. The host itself reaches it.
fn listener(address: Ipv4Addr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let bound = listener.local_addr().unwrap();
    // The control: without a filter the connection is possible.
    TcpStream::connect(bound).unwrap();
    (listener, bound)
}

/// Gives the host an address on a device of its own, so that it is another network than the VMs'.
fn give_host(address: Ipv4Addr) {
    let links = host::links();
    if !links.iter().any(|name| name == "lan0") {
        host::run("ip", &["link", "add", "lan0", "type", "dummy"]);
        host::run("ip", &["link", "set", "lan0", "up"]);
    }
    host::run(
        "ip",
        &[
            "address",
            "replace",
            &format!("{address}/32"),
            "dev",
            "lan0",
        ],
    );
}

/// Removes what [`give_host`] made.
pub fn take_from_host() {
    if host::links().iter().any(|name| name == "lan0") {
        host::run("ip", &["link", "delete", "lan0"]);
    }
}

/// A program that prints whether it connects to `address`.
fn probe(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("timeout 3 bash -c '</dev/tcp/{ip}/{port}' 2>/dev/null && echo reached || echo no")
}

fn unreachable(name: &str, naive: &str, address: Ipv4Addr, add: bool) -> Case {
    case(&format!("network::{name}"), naive, move || {
        let _backend = shared();
        if add {
            give_host(address);
        } else {
            // The bridge is made for the first VM that has a network.
            run("bash", NETWORK, "true");
        }
        let (_listener, bound) = listener(address);
        let execution = run("bash", NETWORK, &probe(bound));
        assert_eq!(execution.stdout.to_text(), "no\n", "{execution:?}");
    })
}

/// A datagram from the VM that no socket of the host at this address may receive.
fn datagram(name: &str, naive: &str, address: Ipv4Addr, port: u16) -> Case {
    case(&format!("network::{name}"), naive, move || {
        let _backend = shared();
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let code = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\nfor i in range(3):\n  try: s.sendto(b'from the VM', ('{address}', {port}))\n  except OSError: pass\nprint('sent')"
        );
        let execution = run("python", NETWORK, &code);
        assert_eq!(execution.stdout.to_text(), "sent\n", "{execution:?}");
        let mut buffer = [0; 64];
        let received = socket.recv_from(&mut buffer);
        assert!(
            received.is_err(),
            "the host received a datagram: {received:?}"
        );
    })
}

pub fn cases() -> Vec<Case> {
    let bridge: Ipv4Addr = BRIDGE_ADDRESS.parse().unwrap();
    let [a, b, c, _] = bridge.octets();
    vec![
        unreachable(
            "host_at_the_gateway",
            "a program reaches the host's services at its gateway",
            bridge,
            false,
        ),
        unreachable(
            "metadata_service",
            "a program reads the cloud's credentials at 169.254.169.254",
            Ipv4Addr::new(169, 254, 169, 254),
            true,
        ),
        // Judge0's CVE-2024-29021: programs reach the service's own database.
        unreachable(
            "database_of_the_service",
            "a program reaches the database beside the server",
            Ipv4Addr::new(10, 23, 0, 9),
            true,
        ),
        unreachable(
            "private_network_172",
            "a program reaches the host's containers",
            Ipv4Addr::new(172, 17, 0, 1),
            true,
        ),
        unreachable(
            "private_network_192",
            "a program reaches the office's printers",
            Ipv4Addr::new(192, 168, 1, 7),
            true,
        ),
        unreachable(
            "carrier_network",
            "a program reaches the provider's network",
            Ipv4Addr::new(100, 64, 3, 3),
            true,
        ),
        unreachable(
            "public_address_of_the_host",
            "a program reaches the host's services at its public address",
            Ipv4Addr::new(203, 0, 113, 77),
            true,
        ),
        case(
            "network::backend",
            "a program orders executions from the server that runs it",
            move || {
                let port = shared().url().rsplit(':').next().unwrap().parse().unwrap();
                for address in [bridge, Ipv4Addr::LOCALHOST] {
                    let target = SocketAddr::new(IpAddr::V4(address), port);
                    let execution = run("bash", NETWORK, &probe(target));
                    assert_eq!(execution.stdout.to_text(), "no\n", "{execution:?}");
                }
            },
        ),
        datagram(
            "broadcast",
            "a broadcast reaches host and other VMs",
            Ipv4Addr::new(a, b, c, 255),
            6767,
        ),
        datagram(
            "limited_broadcast",
            "a broadcast reaches host and other VMs",
            Ipv4Addr::BROADCAST,
            6768,
        ),
        datagram(
            "multicast",
            "a program speaks to the services that announce themselves (mDNS)",
            Ipv4Addr::new(224, 0, 0, 251),
            5353,
        ),
        case(
            "network::ipv6",
            "IPv6 has no rules, and leads around those of IPv4",
            || {
                let code = "import socket, time\nend = time.time() + 4\nwhile time.time() < end:\n  for target in ('ff02::1%eth0', 'fe80::1%eth0', '::ffff:10.0.0.1'):\n    try: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', (target, 53))\n    except OSError: pass\n  time.sleep(0.2)";
                // The shared server lives in this network namespace.
                let _server = shared();
                let frames = Ipv6Frames::listen();
                // A guest sends once its address is no longer tentative. The VM's device drops what it sends.
                run("python", NETWORK, code);
                assert!(!frames.any(), "the host received an IPv6 frame");
            },
        ),
        case(
            "network::many_connections",
            "one program fills the host's table of connections",
            || {
                let count = || {
                    std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
                        .ok()
                        .and_then(|text| text.trim().parse::<u64>().ok())
                        .unwrap_or(0)
                };
                let before = count();
                let code = "import socket, time\nend = time.time() + 5\nn = 0\nwhile time.time() < end:\n  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n  try: s.sendto(b'x', ('198.51.100.%d' % (n % 250 + 1), 1024 + n % 60000)); n += 1\n  except OSError: pass\n  s.close()\nprint('done')";
                let execution = run("python", NETWORK, code);
                assert_eq!(execution.stdout.to_text(), "done\n", "{execution:?}");
                assert!(count() < before + 4096, "{} entries", count());
                still_serves(&shared());
            },
        ),
    ]
}

/// The IPv6 frames that the network interfaces of this network namespace receive.
struct Ipv6Frames(OwnedFd);

impl Ipv6Frames {
    fn listen() -> Self {
        // SAFETY: takes no pointers. The protocol is in network byte order (packet(7)).
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                i32::from((libc::ETH_P_IPV6 as u16).to_be()),
            )
        };
        assert!(
            fd >= 0,
            "socket(AF_PACKET): {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: the descriptor is open, and nothing else owns it.
        Ipv6Frames(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// True if a frame arrived since [`Ipv6Frames::listen`].
    fn any(&self) -> bool {
        let mut byte = [0_u8; 1];
        // SAFETY: the buffer has one byte and outlives the call.
        unsafe { libc::recv(self.0.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) >= 0 }
    }
}
