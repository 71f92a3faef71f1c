//! Notices changes of the tables: nfnetlink multicasts every change of nftables.

use std::io;
use std::sync::Arc;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio_util::task::AbortOnDropHandle;

use super::firewall::Firewall;
use super::nft::table;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_DELSETELEM: u8 = 14;
const NFT_MSG_NEWGEN: u8 = 15;
/// The first attribute of a table is its name; of chains, rules and sets it is their table's.
const NAME_OF_TABLE: u16 = 1;

const NLMSG_HEADER: usize = 16;
/// `struct nfgenmsg`.
const NFGEN_HEADER: usize = 4;

/// Watches the tables of `firewall` until the returned value is dropped. Changes from before this call are not seen.
pub fn watch(firewall: Arc<Firewall>) -> io::Result<AbortOnDropHandle<()>> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let table = table(firewall.bridge());
        loop {
            let first = socket.recv_from_full().await.map(|(bytes, _)| bytes);
            // All that is waiting, so that one transaction is checked once.
            let mut changed = concerns(&first, &table);
            while let Some(next) = next_of(&socket) {
                changed |= concerns(&next, &table);
            }
            if changed {
                check(&firewall).await;
            }
        }
    })))
}

/// A message that is there already.
fn next_of(socket: &TokioSocket) -> Option<io::Result<Vec<u8>>> {
    match socket.socket_ref().recv_from_full() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        received => Some(received.map(|(bytes, _)| bytes)),
    }
}

async fn check(firewall: &Firewall) {
    let bridge = firewall.bridge();
    match firewall.check().await {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            bridge,
            "the firewall rules of the bridge were changed or removed, and have been applied again"
        ),
        Err(error) => tracing::error!(
            bridge,
            %error,
            "the firewall rules of the bridge were changed or removed, and cannot be applied again: VMs with a network are ended"
        ),
    }
}

/// Whether a datagram may report a change of the rules of a table. A failed receive does: messages were lost (ENOBUFS).
fn concerns(received: &io::Result<Vec<u8>>, table: &str) -> bool {
    let Ok(bytes) = received else {
        return true;
    };
    let mut rest = bytes.as_slice();
    while rest.len() >= NLMSG_HEADER {
        let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if len < NLMSG_HEADER || len > rest.len() {
            return true;
        }
        let (message, kind) = (&rest[..len], u16::from_ne_bytes([rest[4], rest[5]]));
        let [subsystem, kind] = kind.to_be_bytes();
        // Elements come and go with VMs.
        let rules = !matches!(
            kind,
            NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM | NFT_MSG_NEWGEN
        );
        if subsystem == NFNL_SUBSYS_NFTABLES && rules && names(message, table) {
            return true;
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// True if the message's first attribute is the table's name.
fn names(message: &[u8], table: &str) -> bool {
    let Some(attribute) = message.get(NLMSG_HEADER + NFGEN_HEADER..) else {
        return false;
    };
    let [len_low, len_high, kind_low, kind_high, ..] = *attribute else {
        return false;
    };
    let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
    let kind = u16::from_ne_bytes([kind_low, kind_high]) & 0x3fff;
    let name = attribute.get(4..len).unwrap_or_default();
    kind == NAME_OF_TABLE && name.strip_suffix(&[0]).unwrap_or(name) == table.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subsystem: u8, kind: u8, name: &str) -> Vec<u8> {
        let mut attribute = (4 + name.len() as u16 + 1).to_ne_bytes().to_vec();
        attribute.extend(NAME_OF_TABLE.to_ne_bytes());
        attribute.extend(name.bytes());
        attribute.push(0);
        let len = (NLMSG_HEADER + NFGEN_HEADER + attribute.len()) as u32;
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(u16::from_be_bytes([subsystem, kind]).to_ne_bytes());
        bytes.extend([0; 10 + NFGEN_HEADER]);
        bytes.extend(attribute);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn only_changes_of_the_tables_rules_concern_it() {
        const DELTABLE: u8 = 2;
        let concerns = |bytes: Vec<u8>| concerns(&Ok(bytes), "cloude_b");
        assert!(concerns(message(
            NFNL_SUBSYS_NFTABLES,
            DELTABLE,
            "cloude_b"
        )));
        assert!(!concerns(message(
            NFNL_SUBSYS_NFTABLES,
            DELTABLE,
            "cloude_b2"
        )));
        assert!(!concerns(message(
            NFNL_SUBSYS_NFTABLES,
            NFT_MSG_NEWSETELEM,
            "cloude_b"
        )));
        assert!(!concerns(message(1, DELTABLE, "cloude_b")));
        let second = [
            message(NFNL_SUBSYS_NFTABLES, DELTABLE, "filter"),
            message(NFNL_SUBSYS_NFTABLES, DELTABLE, "cloude_b"),
        ];
        assert!(concerns(second.concat()));
    }

    #[test]
    fn a_lost_message_concerns_every_table() {
        let lost = Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        assert!(concerns(&lost, "cloude_b"));
        assert!(concerns(&Ok(vec![0; 16]), "cloude_b"));
    }
}
