//! The guest's network: loopback, and the one Ethernet interface where the VM has it.

use std::ffi::{c_char, c_int, c_void};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use cloude_protocol::boot::NetworkConfig;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::uevent;

/// The VM's Ethernet interface, by the kernel's own name: nothing renames it.
const INTERFACE: &str = "eth0";

/// The virtio driver may still be looking at the device when the agent wants it.
const INTERFACE_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes, where nothing else is said: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel has no such device, or no driver for it.
    #[error("no network interface {INTERFACE} within {} s: has the VM a TAP, and the kernel virtio_net?", INTERFACE_PATIENCE.as_secs())]
    NoInterface,
    /// A setting was refused.
    #[error("could not {what} of {interface}: {errno}")]
    Refused {
        /// Which setting.
        what: &'static str,
        /// Of which interface.
        interface: &'static str,
        /// The system's reason.
        errno: Errno,
    },
}

/// Bring the loopback interface up; its address comes by itself.
pub fn loopback() -> Result<(), NetError> {
    Interface::new("lo")?.up()
}

/// Give the VM its address, and its route where there is a gateway.
pub fn configure(config: &NetworkConfig) -> Result<(), NetError> {
    let found = uevent::wait_for(INTERFACE_PATIENCE, || {
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
    interface.set_address(libc::SIOCSIFADDR, config.address, "set the address")?;
    interface.set_address(libc::SIOCSIFNETMASK, mask, "set the prefix")?;
    interface.up()?;
    if let Some(gateway) = config.gateway {
        let outside = (gateway.to_bits() ^ config.address.to_bits()) & mask.to_bits() != 0;
        // A gateway outside of the subnet, such as any with a prefix of 32, is on the link by decree.
        if outside {
            interface.add_route(gateway, Ipv4Addr::BROADCAST, None)?;
        }
        interface.add_route(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, Some(gateway))?;
    }
    Ok(())
}

/// Give the interface its hardware address, for which it must be down.
pub fn set_mac(mac: [u8; 6]) -> Result<(), NetError> {
    let interface = Interface::new(INTERFACE)?;
    let mut request = interface.request();
    interface.ioctl(libc::SIOCGIFFLAGS, &mut request, "read the flags")?;
    // SAFETY: SIOCGIFFLAGS has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags & !(libc::IFF_UP as libc::c_short);
    interface.ioctl(libc::SIOCSIFFLAGS, &mut request, "take down the link")?;
    let mut address = libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data: [0; 14],
    };
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    interface.ioctl(
        libc::SIOCSIFHWADDR,
        &mut request,
        "set the hardware address",
    )
}

/// Have the kernel announce the address by ARP each time that the link comes up. Without it the bridge
/// learns of the VM with its first packet: a kernel that cannot is no failure.
pub fn announce() {
    let _ = std::fs::write(
        format!("/proc/sys/net/ipv4/conf/{INTERFACE}/arp_notify"),
        "1",
    );
}

/// Ask the kernel whether the interface has just this hardware address and this address.
pub fn check(mac: [u8; 6], address: Ipv4Addr) -> Result<(), NetError> {
    let interface = Interface::new(INTERFACE)?;
    let mut request = interface.request();
    interface.ioctl(
        libc::SIOCGIFHWADDR,
        &mut request,
        "read the hardware address",
    )?;
    // SAFETY: SIOCGIFHWADDR has filled in the hardware address.
    let has = unsafe { request.ifr_ifru.ifru_hwaddr };
    if has
        .sa_data
        .iter()
        .zip(mac)
        .any(|(has, byte)| *has as u8 != byte)
    {
        return Err(interface.other("keep the hardware address"));
    }
    let mut request = interface.request();
    interface.ioctl(libc::SIOCGIFADDR, &mut request, "read the address")?;
    // SAFETY: SIOCGIFADDR has filled in the address.
    let has = unsafe { request.ifr_ifru.ifru_addr };
    if has.sa_data[2..6] != socket_address(address).sa_data[2..6] {
        return Err(interface.other("keep the address"));
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

/// An interface and a socket to ask for changes to it (netdevice(7)).
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
        .map_err(|errno| NetError::Refused {
            what: "open a socket for the settings",
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

    /// `data` is what `code` takes.
    fn ioctl<T>(
        &self,
        code: libc::c_ulong,
        data: &mut T,
        what: &'static str,
    ) -> Result<(), NetError> {
        let pointer: *mut c_void = (&raw mut *data).cast();
        // SAFETY: every caller gives the structure that its request takes (netdevice(7)).
        let result: c_int = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, pointer) };
        match result {
            -1 => Err(NetError::Refused {
                what,
                interface: self.name,
                errno: Errno::last(),
            }),
            _ => Ok(()),
        }
    }

    /// It is not what it was set to.
    fn other(&self, what: &'static str) -> NetError {
        NetError::Refused {
            what,
            interface: self.name,
            errno: Errno::EADDRNOTAVAIL,
        }
    }

    fn up(&self) -> Result<(), NetError> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFFLAGS, &mut request, "read the flags")?;
        // SAFETY: SIOCGIFFLAGS has filled in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS, &mut request, "bring up the link")
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), NetError> {
        let mut request = self.request();
        request.ifr_ifru.ifru_mtu = mtu as c_int;
        self.ioctl(libc::SIOCSIFMTU, &mut request, "set the MTU")
    }

    fn set_address(
        &self,
        code: libc::c_ulong,
        address: Ipv4Addr,
        what: &'static str,
    ) -> Result<(), NetError> {
        let mut request = self.request();
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.ioctl(code, &mut request, what)
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
        self.ioctl(libc::SIOCADDRT, &mut route, "set the route")
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
    // SAFETY: both are 16 bytes of plain data, and the family says which is meant (ip(7)).
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
