//! The traffic of a VM that its network device has dropped.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The `network` of a result.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkReport {
    /// Dropped packets by destination, in the order of their first packet. At most 64 entries.
    pub denied: Vec<Denied>,
    /// The number of dropped packets that are in no entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub denied_others: u64,
}

/// Dropped packets of one kind.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Denied {
    /// The destination. For ARP it is the address that was asked for. Absent if the packet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// The destination port of TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `arp`, `ipv6`, `vlan`; `ip-N` and `ethertype-0xN` for others.
    pub protocol: String,
    /// The reason.
    pub reason: DenyReason,
    /// The number of packets.
    pub times: u64,
}

/// The reason for which packets were dropped.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DenyReason {
    /// The destination is the host, another VM, or in a denied network.
    Destination,
    /// The port is in `network.deny_ports`.
    Port,
    /// More new connections than `network.limits.connections_per_s`.
    Rate,
    /// The source is not the VM's own MAC or IP address.
    Source,
    /// Neither ARP nor IPv4.
    Protocol,
    /// A header is truncated, has IP options, or contradicts another one.
    Malformed,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol)?;
        match (self.address, self.port) {
            (Some(IpAddr::V6(ip)), Some(port)) => write!(f, " [{ip}]:{port}"),
            (Some(ip), Some(port)) => write!(f, " {ip}:{port}"),
            (Some(ip), None) => write!(f, " {ip}"),
            (None, _) => Ok(()),
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_like_its_documentation() {
        let report = NetworkReport {
            denied: vec![Denied {
                address: Some([169, 254, 169, 254].into()),
                port: Some(80),
                protocol: "tcp".into(),
                reason: DenyReason::Destination,
                times: 3,
            }],
            denied_others: 0,
        };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(
            json,
            r#"{"denied":[{"address":"169.254.169.254","port":80,"protocol":"tcp","reason":"destination","times":3}]}"#
        );
        assert_eq!(
            serde_json::from_str::<NetworkReport>(&json).unwrap(),
            report
        );
        assert_eq!(report.denied[0].to_string(), "tcp 169.254.169.254:80");
    }
}
