//! Who a fork becomes. Made anew for each, and never kept.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use cloude_protocol::agent::{Identity, NetworkIdentity};
use rustix::rand::{GetRandomFlags, getrandom};

/// So many bytes of the host's kernel's generator.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// 32 bytes of the kernel's generator in hexadecimal.
pub fn new_token() -> io::Result<String> {
    Ok(const_hex::encode(random::<32>()?))
}

/// An identity that no other VM has. `id` is the execution's. The clock is read here: send it at once.
pub fn new_identity(id: &str, network: Option<NetworkIdentity>) -> io::Result<Identity> {
    let machine = uuid::Builder::from_random_bytes(random()?).into_uuid();
    let boot = uuid::Builder::from_random_bytes(random()?).into_uuid();
    let entropy = const_hex::encode(random::<32>()?);
    let token = new_token()?;
    // Last of all: making the rest takes time.
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

/// What a VM is called.
pub fn hostname(id: &str) -> String {
    let short: String = id.chars().take(8).collect();
    format!("vm-{short}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_identity_differs_in_all_that_must() {
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
    fn each_field_has_the_form_that_the_agent_takes() {
        let identity = new_identity("0193abcd-ffff", None).unwrap();
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(identity.entropy.len() == 64 && is_hex(&identity.entropy));
        assert!(identity.token.len() == 64 && is_hex(&identity.token));
        assert!(identity.machine_id.len() == 32 && is_hex(&identity.machine_id));
        assert_eq!(identity.boot_id.len(), 36);
        assert_eq!(identity.hostname, "vm-0193abcd");
    }
}
