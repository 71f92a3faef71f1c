//! The bridge and its ports, over rtnetlink.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};

use super::addresses::{Range, mac_of};
use super::error::NetworkError;

/// A connection to the kernel's link tables.
#[derive(Clone, Debug)]
pub struct Links {
    handle: Handle,
}

fn refused(what: String) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Link {
        what,
        source: Box::new(source),
    }
}

impl Links {
    /// Opens it. The connection's task ends with the last handle.
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
        tokio::spawn(connection);
        Ok(Links { handle })
    }

    /// The index of a link, if there is one of that name.
    pub async fn index(&self, name: &str) -> Option<u32> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        links
            .try_next()
            .await
            .ok()
            .flatten()
            .map(|link| link.header.index)
    }

    /// Names of all links that start so.
    pub async fn with_prefix(&self, prefix: &str) -> Result<Vec<String>, NetworkError> {
        let mut links = self.handle.link().get().execute();
        let mut names = Vec::new();
        while let Some(link) = links
            .try_next()
            .await
            .map_err(refused("listing links".into()))?
        {
            names.extend(
                link.attributes
                    .into_iter()
                    .filter_map(|attribute| match attribute {
                        LinkAttribute::IfName(name) if name.starts_with(prefix) => Some(name),
                        _ => None,
                    }),
            );
        }
        Ok(names)
    }

    /// Makes the bridge with its address, and sets it up. Its hardware address is set: a bridge without one has
    /// the lowest of its ports', which changes as VMs come and go, and those that go on know the old one.
    pub async fn create_bridge(
        &self,
        name: &str,
        range: &Range,
        mtu: u16,
    ) -> Result<u32, NetworkError> {
        let what = || format!("making the bridge {name}");
        let bridge = LinkBridge::new(name)
            .mtu(mtu.into())
            .address(mac_of(range.gateway).to_vec())
            .up()
            .build();
        self.handle
            .link()
            .add(bridge)
            .execute()
            .await
            .map_err(refused(what()))?;
        let index = self
            .index(name)
            .await
            .ok_or_else(|| NetworkError::Vanished(name.to_owned()))?;
        let Range {
            gateway,
            prefix_len,
            ..
        } = *range;
        self.add_address(index, gateway, prefix_len)
            .await
            .map_err(refused(what()))?;
        Ok(index)
    }

    async fn add_address(
        &self,
        index: u32,
        ip: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), rtnetlink::Error> {
        self.handle
            .address()
            .add(index, ip.into(), prefix)
            .execute()
            .await
    }

    /// Makes a link a port of the bridge that reaches no other isolated port, and sets it up.
    pub async fn attach(&self, name: &str, bridge: u32, mtu: u16) -> Result<(), NetworkError> {
        let what = || format!("attaching {name} to the bridge");
        let index = self
            .index(name)
            .await
            .ok_or_else(|| NetworkError::Vanished(name.to_owned()))?;
        let port = LinkUnspec::new_with_index(index)
            .mtu(mtu.into())
            .controller(bridge)
            .build();
        self.handle
            .link()
            .set(port)
            .execute()
            .await
            .map_err(refused(what()))?;
        let isolated = LinkBridgePort::new(index).isolated(true).build();
        self.handle
            .link()
            .set_port(isolated)
            .execute()
            .await
            .map_err(refused(what()))?;
        // Up last: not a packet passes before the port is isolated.
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(refused(what()))
    }

    /// Binds an address to a hardware address on a link, for good: the host never asks for it by ARP.
    ///
    /// A dynamic entry is shared by all that the host sends to the address. Whoever connects to it before the
    /// guest is up starts its three ARP requests, and when these fail, the connections of all others fail too.
    pub async fn add_neighbour(
        &self,
        link: u32,
        ip: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<(), NetworkError> {
        self.handle
            .neighbours()
            .add(link, ip.into())
            .link_layer_address(&mac)
            .replace()
            .execute()
            .await
            .map_err(refused(format!("binding {ip} to its hardware address")))
    }

    /// Takes an address's hardware address back.
    pub async fn remove_neighbour(&self, link: u32, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Inet;
        entry.header.ifindex = link;
        let destination = NeighbourAddress::Inet(ip);
        entry
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        self.handle
            .neighbours()
            .del(entry)
            .execute()
            .await
            .map_err(refused(format!("taking the hardware address of {ip} back")))
    }

    /// Removes a link, if it is there.
    pub async fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let Some(index) = self.index(name).await else {
            return Ok(());
        };
        let removed = self.handle.link().del(index).execute().await;
        removed.map_err(refused(format!("removing {name}")))
    }
}
