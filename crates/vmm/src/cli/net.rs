//! The options for the network of `cloude-vmm run`.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

pub type Mac = [u8; 6];

/// Validates `ADDRESS/PREFIX[,GATEWAY]`.
pub fn parse_address(text: &str) -> Result<String, String> {
    let usage = || "expected ADDRESS/PREFIX[,GATEWAY], such as 10.0.0.2/24,10.0.0.1".to_owned();
    let (own, gateway) = match text.split_once(',') {
        Some((own, gateway)) => (own, Some(gateway)),
        None => (text, None),
    };
    let (address, prefix) = own.split_once('/').ok_or_else(usage)?;
    let good = address.parse::<Ipv4Addr>().is_ok()
        && prefix
            .parse::<u8>()
            .is_ok_and(|prefix| (1..=32).contains(&prefix))
        && gateway.is_none_or(|gateway| gateway.parse::<Ipv4Addr>().is_ok());
    good.then(|| text.to_owned()).ok_or_else(usage)
}

/// Parses a MAC address such as `02:00:00:00:00:01`.
pub fn parse_mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            (part.len() == 2)
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
        })
        .collect();
    let mac: Mac = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or("expected six bytes, such as 02:00:00:00:00:01")?;
    if mac[0] & 1 != 0 {
        return Err("a multicast address: the first byte has to be even".to_owned());
    }
    Ok(mac)
}

/// A locally administered MAC address derived from the TAP's name.
pub fn mac_for(tap: &str) -> Mac {
    // FNV-1a, 32 bits.
    let hash = tap.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_be_bytes();
    [0x02, 0xc1, a, b, c, d]
}

/// Opens or creates a TAP by name, with the flags that virtio-net needs.
pub fn open_tap(name: &str) -> io::Result<File> {
    // linux/if_tun.h: _IOW('T', 202, int).
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        let why = format!("a TAP's name has 1 to {} characters", libc::IFNAMSIZ - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain data, and all bytes zero are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as _;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    if unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix_and_may_have_a_gateway() {
        assert!(parse_address("10.0.0.2/24").is_ok());
        assert!(parse_address("10.0.0.2/24,10.0.0.1").is_ok());
        for bad in [
            "10.0.0.2",
            "10.0.0/24",
            "10.0.0.2/33",
            "10.0.0.2/0",
            "10.0.0.2/24,x",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_is_six_bytes_and_unicast() {
        assert_eq!(parse_mac("02:00:00:00:00:0f"), Ok([2, 0, 0, 0, 0, 15]));
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:1",
            "01:00:00:00:00:00",
            "zz:0:0:0:0:0",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_derived_mac_is_local_unicast_and_differs_by_name() {
        assert_eq!(mac_for("tap0")[0] & 3, 2);
        assert_eq!(mac_for("tap0"), mac_for("tap0"));
        assert_ne!(mac_for("tap0"), mac_for("tap1"));
    }
}
