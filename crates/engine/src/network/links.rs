//! Links, addresses and routes, over rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, NeighbourHandle, RouteMessageBuilder};
use tokio::sync::Mutex;

use super::addresses::{Range, mac_of};
use super::error::NetworkError;
use super::mark::Mark;

/// A netlink socket (NETLINK_ROUTE). Clones share it.
#[derive(Clone, Debug)]
pub struct Links {
    handle: Handle,
    /// Held while a list is read: a netlink socket has one dump at a time, and refuses a second one with EBUSY
    /// (`__netlink_dump_start`, net/netlink/af_netlink.c).
    dump: Arc<Mutex<()>>,
}

/// A network interface.
#[derive(Debug)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IFLA_IFALIAS.
    pub alias: Option<String>,
    /// IFLA_GROUP.
    pub group: u32,
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            alias: None,
            group: 0,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Group(group) => link.group = group,
                _ => {}
            }
        }
        link
    }
}

/// Disables IPv6 on the bridge, so that the host has no link-local address that a VM could reach.
pub fn disable_ipv6(bridge: &str) -> Result<(), NetworkError> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"));
    // The file is missing on a kernel without IPv6.
    if !path.exists() {
        return Ok(());
    }
    std::fs::write(&path, "1").map_err(|source| NetworkError::File { path, source })
}

pub(super) fn refused(what: String) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
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
        Ok(Links {
            handle,
            dump: Arc::default(),
        })
    }

    /// All links of this network namespace.
    pub async fn all(&self) -> Result<Vec<Link>, NetworkError> {
        let _dump = self.dump.lock().await;
        let mut messages = self.handle.link().get().execute();
        let mut links = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(refused("listing links".into()))?
        {
            links.push(Link::of(message));
        }
        Ok(links)
    }

    /// The link `name`, if it exists.
    pub async fn find(&self, name: &str) -> Option<Link> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        links.try_next().await.ok().flatten().map(Link::of)
    }

    /// The index of the link `name`.
    pub(super) async fn index(&self, name: &str) -> Result<u32, NetworkError> {
        match self.find(name).await {
            Some(link) => Ok(link.index),
            None => Err(NetworkError::Vanished(name.to_owned())),
        }
    }

    /// The destinations of all IPv4 routes but default routes.
    pub async fn routes(&self) -> Result<Vec<Ipv4Net>, NetworkError> {
        let _dump = self.dump.lock().await;
        let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut messages = self.handle.route().get(request).execute();
        let mut routes = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(refused("listing routes".into()))?
        {
            let prefix_len = message.header.destination_prefix_length;
            routes.extend(
                message
                    .attributes
                    .iter()
                    .filter_map(|attribute| match attribute {
                        RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                            Ipv4Net::new(*ip, prefix_len).ok()
                        }
                        _ => None,
                    }),
            );
        }
        Ok(routes)
    }

    /// Creates the bridge with its IP address, marks it and sets it up. Returns its index. The caller removes the
    /// bridge after an error.
    ///
    /// The MAC is set explicitly. Otherwise Linux uses the lowest MAC of the ports, which changes as VMs come and go,
    /// while other VMs still have the old one in their ARP tables.
    pub async fn create_bridge(
        &self,
        name: &str,
        range: &Range,
        mtu: u16,
        mark: &Mark,
        group: u32,
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
        let index = self.index(name).await?;
        // The kernel takes no alias at the creation.
        let marked = LinkUnspec::new_with_index(index)
            .alias(mark.alias())
            .link_group(group)
            .build();
        self.set(marked, what()).await?;
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
        let _dump = self.dump.lock().await;
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

    /// Changes a link.
    pub(super) async fn set(&self, message: LinkMessage, what: String) -> Result<(), NetworkError> {
        let set = self.handle.link().set(message).execute().await;
        set.map_err(refused(what))
    }

    /// Changes the settings of a bridge's port.
    pub(super) async fn set_port(
        &self,
        message: LinkMessage,
        what: String,
    ) -> Result<(), NetworkError> {
        let set = self.handle.link().set_port(message).execute().await;
        set.map_err(refused(what))
    }

    /// Neighbour and forwarding tables.
    pub(super) fn neighbours(&self) -> NeighbourHandle {
        self.handle.neighbours()
    }

    /// Removes a link.
    pub async fn remove(&self, link: u32) -> Result<(), NetworkError> {
        let removed = self.handle.link().del(link).execute().await;
        removed.map_err(refused(format!("removing the link with index {link}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn lists_at_the_same_time_do_not_disturb_each_other() {
        let links = Links::open().unwrap();
        let readers: Vec<_> = (0..64)
            .map(|_| {
                let links = links.clone();
                tokio::spawn(async move { links.addresses().await.map(|list| list.len()) })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap().unwrap();
        }
    }
}
