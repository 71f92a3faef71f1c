//! The identity of a fork: entropy, clock, names, token, network. Generated for each fork, never stored.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use cloude_protocol::agent::{Identity, NetworkIdentity};
use rustix::rand::{GetRandomFlags, getrandom};

/// `N` bytes of getrandom(2).
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// A token: 32 random bytes in hexadecimal.
pub fn new_token() -> io::Result<String> {
    Ok(const_hex::encode(random::<32>()?))
}

/// A new identity for the execution `id`. It holds the wall clock as of this call: send it at once.
pub fn new_identity(id: &str, network: Option<NetworkIdentity>) -> io::Result<Identity> {
    let machine = uuid::Builder::from_random_bytes(random()?).into_uuid();
    let boot = uuid::Builder::from_random_bytes(random()?).into_uuid();
    let entropy = const_hex::encode(random::<32>()?);
    let token = new_token()?;
    // Read last, so that it is as recent as possible.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| io::Error::other("the host's clock is before 1970"))?;
    Ok(Identity {
        entropy,
        wall_clock_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        hostname: hostname(id),
        machine_id: machine.simple().to_string(),
        boot_id: boot.hyphenated().to_string(),
        token,
        network,
    })
}

/// A VM's host name: `vm-` and the first 8 characters of the execution's id.
pub fn hostname(id: &str) -> String {
    let short: String = id.chars().take(8).collect();
    format!("vm-{short}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_identities_share_a_value() {
        let identities: Vec<Identity> = (0..1000)
            .map(|n| new_identity(&format!("{n:08}-id"), None).unwrap())
            .collect();
        let distinct = |field: fn(&Identity) -> &String| {
            identities.iter().map(field).collect::<HashSet<_>>().len()
        };
        assert_eq!(distinct(|identity| &identity.entropy), 1000);
        assert_eq!(distinct(|identity| &identity.machine_id), 1000);
        assert_eq!(distinct(|identity| &identity.boot_id), 1000);
        assert_eq!(distinct(|identity| &identity.token), 1000);
        assert_eq!(distinct(|identity| &identity.hostname), 1000);
    }

    #[test]
    fn each_field_has_the_agents_format() {
        let identity = new_identity("0193abcd-ffff", None).unwrap();
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(identity.entropy.len() == 64 && is_hex(&identity.entropy));
        assert!(identity.token.len() == 64 && is_hex(&identity.token));
        assert!(identity.machine_id.len() == 32 && is_hex(&identity.machine_id));
        assert_eq!(identity.boot_id.len(), 36);
        assert_eq!(identity.hostname, "vm-0193abcd");
    }
}
