//! The destinations of VMs: the settings of their devices' egress filters.

use std::net::Ipv4Addr;

use cloude_vmm::control::{EgressSpec, NetLimits};
use ipnet::Ipv4Net;

use super::addresses::{Range, mac_of};
use super::error::NetworkError;
use crate::config;

/// Destinations that VMs cannot reach, unless `network.allow` has them: the special-purpose networks of RFC 6890,
/// among them private networks and 169.254.0.0/16 with the metadata services of clouds, and multicast.
pub const DENIED: [&str; 14] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The common part of the filters of all VMs of a network.
#[derive(Debug)]
pub struct Policy {
    range: Range,
    allow: Vec<Ipv4Net>,
    deny: Vec<Ipv4Net>,
    dns: Vec<Ipv4Addr>,
    deny_ports: Vec<u16>,
    limits: NetLimits,
}

impl Policy {
    /// Fails if `network.allow` has something else than a network.
    pub fn new(config: &config::Network, range: Range) -> Result<Self, NetworkError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| NetworkError::Allow(text.to_owned()))
        };
        let limits = &config.limits;
        Ok(Policy {
            range,
            allow: config
                .allow
                .iter()
                .map(|net| parse(net))
                .collect::<Result<_, _>>()?,
            deny: DENIED.into_iter().map(parse).collect::<Result<_, _>>()?,
            dns: config.dns.clone(),
            deny_ports: config.deny_ports.clone(),
            limits: NetLimits {
                packets_per_s: limits.packets_per_s,
                bytes_per_s: limits.bytes_per_s,
                connections_per_s: limits.connections_per_s,
            },
        })
    }

    /// Exceptions from the denied networks.
    pub fn allow(&self) -> &[Ipv4Net] {
        &self.allow
    }

    /// Denied networks.
    pub fn deny(&self) -> &[Ipv4Net] {
        &self.deny
    }

    /// Name servers of VMs.
    pub fn dns(&self) -> &[Ipv4Addr] {
        &self.dns
    }

    /// Denied destination ports.
    pub fn deny_ports(&self) -> &[u16] {
        &self.deny_ports
    }

    /// The limits of each device.
    pub fn limits(&self) -> NetLimits {
        self.limits
    }

    /// The filter of a VM. `host` are the addresses of this host.
    pub fn egress(&self, address: Ipv4Addr, outbound: bool, host: &[Ipv4Addr]) -> EgressSpec {
        let has = |nets: &[Ipv4Net], ip: &Ipv4Addr| nets.iter().any(|net| net.contains(ip));
        // Most addresses of a host are private, and denied in any case.
        let open = |ip: &&Ipv4Addr| has(&self.allow, ip) || !has(&self.deny, ip);
        let mut never = vec![self.range.net()];
        never.extend(host.iter().filter(open).copied().map(Ipv4Net::from));
        EgressSpec {
            address,
            gateway: self.range.gateway,
            gateway_mac: mac_of(self.range.gateway),
            outbound,
            never,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            dns: self.dns.clone(),
            deny_ports: self.deny_ports.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let config = config::Network {
            allow: vec!["10.7.0.0/16".into()],
            ..config::Network::default()
        };
        Policy::new(&config, Range::parse("172.30.0.0/16", None).unwrap()).unwrap()
    }

    #[test]
    fn the_subnet_and_reachable_addresses_of_the_host_are_denied() {
        let host = ["127.0.0.1", "192.168.1.2", "10.7.0.1", "81.2.69.142"];
        let host: Vec<Ipv4Addr> = host.iter().map(|ip| ip.parse().unwrap()).collect();
        let spec = policy().egress(Ipv4Addr::new(172, 30, 0, 2), true, &host);
        let never: Vec<String> = spec.never.iter().map(ToString::to_string).collect();
        assert_eq!(never, ["172.30.0.0/16", "10.7.0.1/32", "81.2.69.142/32"]);
    }

    #[test]
    fn an_invalid_exception_is_refused() {
        let config = config::Network {
            allow: vec!["10.7.0.0/40".into()],
            ..config::Network::default()
        };
        let range = Range::parse("172.30.0.0/16", None).unwrap();
        let error = Policy::new(&config, range).unwrap_err().to_string();
        assert!(error.contains("10.7.0.0/40"), "{error}");
    }
}
