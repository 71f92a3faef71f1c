//! The ports of the bridge: TAPs, with static entries in the forwarding and neighbour tables.

use std::net::Ipv4Addr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkBridgePort, LinkUnspec};

use super::error::NetworkError;
use super::links::{Links, refused};
use super::mark::Mark;

/// A TAP that becomes a port.
pub struct Port<'a> {
    /// The TAP's name.
    pub name: &'a str,
    /// The bridge's index.
    pub bridge: u32,
    /// Bytes.
    pub mtu: u16,
    /// The MAC address of the VM.
    pub mac: [u8; 6],
    /// The owner.
    pub mark: &'a Mark,
}

impl Port<'_> {
    /// Adds the TAP to the bridge, and sets it up.
    ///
    /// An isolated port forwards no frame to other isolated ports. With a static entry in the forwarding table, and
    /// neither learning nor flooding, a frame reaches a VM only if it is addressed to that VM's MAC: packets for a VM
    /// that is silent go to nobody else.
    pub async fn attach(&self, links: &Links) -> Result<(), NetworkError> {
        let what = || format!("attaching {} to the bridge", self.name);
        let index = links.index(self.name).await?;
        let port = LinkUnspec::new_with_index(index)
            .mtu(self.mtu.into())
            .alias(self.mark.alias())
            .controller(self.bridge)
            .build();
        links.set(port, what()).await?;
        let confined = LinkBridgePort::new(index)
            .isolated(true)
            .learning(false)
            .flood(false)
            .mcast_flood(false)
            // The host has a permanent neighbour entry of each VM, and asks for none with ARP. Its own broadcasts are
            // flooded in any case (br_flood in net/bridge/br_forward.c).
            .bcast_flood(false)
            .build();
        links.set_port(confined, what()).await?;
        links
            .neighbours()
            .add_bridge(index, &self.mac)
            // "permanent" would mean an address of the bridge itself.
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller)
            .replace()
            .execute()
            .await
            .map_err(refused(what()))?;
        // Set up last, so that no packet passes before the port is confined.
        let up = LinkUnspec::new_with_index(index).up().build();
        links.set(up, what()).await
    }
}

/// Adds a permanent neighbour entry, so that the host sends no ARP requests for the address.
///
/// A dynamic entry becomes NUD_FAILED after three unanswered ARP requests, for example when a process connects
/// before the guest is up. All other connections to the address fail with it.
pub async fn add_neighbour(
    links: &Links,
    bridge: u32,
    ip: Ipv4Addr,
    mac: [u8; 6],
) -> Result<(), NetworkError> {
    links
        .neighbours()
        .add(bridge, ip.into())
        .link_layer_address(&mac)
        .replace()
        .execute()
        .await
        .map_err(refused(format!("adding the neighbour entry of {ip}")))
}

/// Removes the neighbour entry of an address, if it exists.
pub async fn remove_neighbour(
    links: &Links,
    bridge: u32,
    ip: Ipv4Addr,
) -> Result<(), NetworkError> {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Inet;
    entry.header.ifindex = bridge;
    let destination = NeighbourAddress::Inet(ip);
    entry
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    match links.neighbours().del(entry).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENOENT => Ok(()),
        removed => removed.map_err(refused(format!("removing the neighbour entry of {ip}"))),
    }
}
