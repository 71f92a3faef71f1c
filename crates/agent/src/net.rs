//! Configures the loopback interface and the VM's Ethernet interface (netdevice(7)).

use std::ffi::{c_char, c_int, c_void};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use cloude_protocol::boot::NetworkConfig;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::uevent;

/// The VM's Ethernet interface, by the kernel's name: no udev renames it.
const INTERFACE: &str = "eth0";

/// How long to wait for virtio_net to probe the device.
const INTERFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Ethernet's, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// The network could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The VM has no network device, or the kernel no driver for it.
    #[error("no network interface {INTERFACE} after {} s: the VM needs a network device, and the kernel virtio_net", INTERFACE_TIMEOUT.as_secs())]
    NoInterface,
    /// A system call failed.
    #[error("{call} on {interface} failed: {errno}")]
    Call {
        /// The ioctl, or `socket`.
        call: &'static str,
        /// The interface's name.
        interface: &'static str,
        /// The reason.
        errno: Errno,
    },
    /// A setting reads back differently.
    #[error("{setting} of {interface} is not as it was set")]
    NotApplied {
        /// `hardware address` or `address`.
        setting: &'static str,
        /// The interface's name.
        interface: &'static str,
    },
}

/// Brings the loopback interface up. The kernel adds 127.0.0.1.
pub fn loopback() -> Result<(), NetError> {
    Interface::new("lo")?.up()
}

/// Sets MTU, address and prefix, brings the link up, and adds a default route if there is a gateway.
pub fn configure(config: &NetworkConfig) -> Result<(), NetError> {
    let found = uevent::wait_for(INTERFACE_TIMEOUT, || {
        std::fs::exists(format!("/sys/class/net/{INTERFACE}"))
            .ok()
            .filter(|exists| *exists)
    });
    if !matches!(found, Ok(Some(_))) {
        return Err(NetError::NoInterface);
    }
    let interface = Interface::new(INTERFACE)?;
    interface.set_mtu(config.mtu.unwrap_or(DEFAULT_MTU))?;
    let mask = netmask(config.prefix_len);
    interface.set_address(libc::SIOCSIFADDR, config.address, "SIOCSIFADDR")?;
    interface.set_address(libc::SIOCSIFNETMASK, mask, "SIOCSIFNETMASK")?;
    interface.up()?;
    if let Some(gateway) = config.gateway {
        let outside = (gateway.to_bits() ^ config.address.to_bits()) & mask.to_bits() != 0;
        // A gateway outside of the subnet (prefix 32) needs a host route of its own.
        if outside {
            interface.add_route(gateway, Ipv4Addr::BROADCAST, None)?;
        }
        interface.add_route(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, Some(gateway))?;
    }
    Ok(())
}

/// Sets the hardware address. The link is taken down for it.
pub fn set_mac(mac: [u8; 6]) -> Result<(), NetError> {
    let interface = Interface::new(INTERFACE)?;
    let mut request = interface.request();
    interface.ioctl(libc::SIOCGIFFLAGS, &mut request, "SIOCGIFFLAGS")?;
    // SAFETY: SIOCGIFFLAGS has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags & !(libc::IFF_UP as libc::c_short);
    interface.ioctl(libc::SIOCSIFFLAGS, &mut request, "SIOCSIFFLAGS")?;
    let mut address = libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data: [0; 14],
    };
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    interface.ioctl(libc::SIOCSIFHWADDR, &mut request, "SIOCSIFHWADDR")
}

/// Sets arp_notify: the kernel then sends a gratuitous ARP when the link comes up. Without it, the bridge learns
/// the address with the first packet, so errors are ignored.
pub fn announce() {
    let _ = std::fs::write(
        format!("/proc/sys/net/ipv4/conf/{INTERFACE}/arp_notify"),
        "1",
    );
}

/// Reads hardware address and address back and compares them.
pub fn check(mac: [u8; 6], address: Ipv4Addr) -> Result<(), NetError> {
    let interface = Interface::new(INTERFACE)?;
    let mut request = interface.request();
    interface.ioctl(libc::SIOCGIFHWADDR, &mut request, "SIOCGIFHWADDR")?;
    // SAFETY: SIOCGIFHWADDR has filled in the hardware address.
    let has = unsafe { request.ifr_ifru.ifru_hwaddr };
    if has
        .sa_data
        .iter()
        .zip(mac)
        .any(|(has, byte)| *has as u8 != byte)
    {
        return Err(interface.not_applied("hardware address"));
    }
    let mut request = interface.request();
    interface.ioctl(libc::SIOCGIFADDR, &mut request, "SIOCGIFADDR")?;
    // SAFETY: SIOCGIFADDR has filled in the address.
    let has = unsafe { request.ifr_ifru.ifru_addr };
    if has.sa_data[2..6] != socket_address(address).sa_data[2..6] {
        return Err(interface.not_applied("address"));
    }
    Ok(())
}

fn netmask(prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(
        u32::MAX
            .checked_shl(32 - u32::from(prefix_len.min(32)))
            .unwrap_or(0),
    )
}

/// An interface, and a socket for its ioctls.
struct Interface {
    name: &'static str,
    socket: OwnedFd,
}

impl Interface {
    fn new(name: &'static str) -> Result<Self, NetError> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(|errno| NetError::Call {
            call: "socket(AF_INET)",
            interface: name,
            errno,
        })?;
        Ok(Interface { name, socket })
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all-zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as c_char;
        }
        request
    }

    /// One ioctl. `data` must be the structure that `code` takes.
    fn ioctl<T>(
        &self,
        code: libc::c_ulong,
        data: &mut T,
        call: &'static str,
    ) -> Result<(), NetError> {
        let pointer: *mut c_void = (&raw mut *data).cast();
        // SAFETY: every caller passes the structure that its request takes (netdevice(7)).
        let result: c_int = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, pointer) };
        match result {
            -1 => Err(NetError::Call {
                call,
                interface: self.name,
                errno: Errno::last(),
            }),
            _ => Ok(()),
        }
    }

    fn not_applied(&self, setting: &'static str) -> NetError {
        NetError::NotApplied {
            setting,
            interface: self.name,
        }
    }

    fn up(&self) -> Result<(), NetError> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFFLAGS, &mut request, "SIOCGIFFLAGS")?;
        // SAFETY: SIOCGIFFLAGS has filled in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS, &mut request, "SIOCSIFFLAGS")
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), NetError> {
        let mut request = self.request();
        request.ifr_ifru.ifru_mtu = mtu as c_int;
        self.ioctl(libc::SIOCSIFMTU, &mut request, "SIOCSIFMTU")
    }

    fn set_address(
        &self,
        code: libc::c_ulong,
        address: Ipv4Addr,
        call: &'static str,
    ) -> Result<(), NetError> {
        let mut request = self.request();
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.ioctl(code, &mut request, call)
    }

    fn add_route(
        &self,
        to: Ipv4Addr,
        mask: Ipv4Addr,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), NetError> {
        let mut name = [0 as c_char; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(self.name.bytes()) {
            *to = from as c_char;
        }
        // SAFETY: all-zero is a valid rtentry.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(to);
        route.rt_genmask = socket_address(mask);
        route.rt_flags = libc::RTF_UP as _;
        if let Some(gateway) = gateway {
            route.rt_gateway = socket_address(gateway);
            route.rt_flags |= libc::RTF_GATEWAY as libc::c_ushort;
        } else {
            route.rt_flags |= libc::RTF_HOST as libc::c_ushort;
        }
        route.rt_dev = name.as_mut_ptr();
        self.ioctl(libc::SIOCADDRT, &mut route, "SIOCADDRT")
    }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data; the family selects sockaddr_in (ip(7)).
    unsafe { std::mem::transmute(inet) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_masks() {
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(1), Ipv4Addr::new(128, 0, 0, 0));
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn addresses_are_in_network_order() {
        let address = socket_address(Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(address.sa_data[2..6], [10, 1, 2, 3]);
    }
}
