//! The bridge, its ports and neighbour entries, over rtnetlink.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};

use super::addresses::{Range, mac_of};
use super::error::NetworkError;

/// A netlink socket (NETLINK_ROUTE). Clones share it.
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
    /// Opens a netlink socket. Its task ends with the last clone.
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
        tokio::spawn(connection);
        Ok(Links { handle })
    }

    /// The index of the link `name`, if it exists.
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

    /// Names of all links that start with `prefix`.
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

    /// Creates the bridge with its IP address and sets it up. Returns its index.
    ///
    /// The MAC is set explicitly. Otherwise Linux uses the lowest MAC of the ports, which changes as VMs come and go,
    /// while other VMs still have the old one in their ARP tables.
    pub async fn create_bridge(
        &self,
        name: &str,
        range: &Range,
        mtu: u16,
    ) -> Result<u32, NetworkError> {
        let what = || format!("creating the bridge {name}");
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

    /// The IPv4 addresses of this host.
    pub async fn addresses(&self) -> Result<Vec<Ipv4Addr>, NetworkError> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        let mut messages = request.execute();
        let mut found = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(refused("listing addresses".into()))?
        {
            found.extend(message.attributes.iter().filter_map(|attribute| {
                // The local address; of a point-to-point link IFA_ADDRESS is the peer's.
                match attribute {
                    AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                    _ => None,
                }
            }));
        }
        Ok(found)
    }

    /// Adds a link to the bridge as an isolated port, which forwards no frames to other isolated ports, and sets it
    /// up.
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
        // Set up last, so that no packet passes before the port is isolated.
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(refused(what()))
    }

    /// Adds a permanent neighbour entry, so that the host sends no ARP requests for the address.
    ///
    /// A dynamic entry becomes NUD_FAILED after three unanswered ARP requests, for example when a process connects
    /// before the guest is up. All other connections to the address fail with it.
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
            .map_err(refused(format!("adding the neighbour entry of {ip}")))
    }

    /// Removes the neighbour entry of an address, if it exists.
    pub async fn remove_neighbour(&self, link: u32, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Inet;
        entry.header.ifindex = link;
        let destination = NeighbourAddress::Inet(ip);
        entry
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        match self.handle.neighbours().del(entry).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENOENT => {
                Ok(())
            }
            removed => removed.map_err(refused(format!("removing the neighbour entry of {ip}"))),
        }
    }

    /// Removes a link, if it exists.
    pub async fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let Some(index) = self.index(name).await else {
            return Ok(());
        };
        let removed = self.handle.link().del(index).execute().await;
        removed.map_err(refused(format!("removing {name}")))
    }
}
