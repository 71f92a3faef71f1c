//! Destinations of callbacks: those that a VM's network could reach, so that a client cannot have clouded ask what its
//! programs cannot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use cloude_engine::network::DENIED;
use hyper::Uri;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Global unicast (RFC 4291, 2.4); everything else is denied.
const GLOBAL_IPV6: &str = "2000::/3";
/// Parts of it that are no hosts of the internet, or that lead to an IPv4 address: RFC 6890, RFC 3056, RFC 9637.
const DENIED_IPV6: [&str; 5] = [
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "2620:4f:8000::/48",
];

/// The addresses that callbacks may have.
#[derive(Debug)]
pub struct Egress {
    allow: Vec<IpNet>,
    deny: Vec<Ipv4Net>,
    global: Option<Ipv6Net>,
    deny_ipv6: Vec<Ipv6Net>,
}

impl Egress {
    /// The rules of VMs with exceptions. Entries of `allow` that are no network are ignored; the configuration's check
    /// refuses them.
    pub fn new(allow: &[String]) -> Self {
        Egress {
            allow: allow.iter().filter_map(|net| net.parse().ok()).collect(),
            deny: DENIED.iter().filter_map(|net| net.parse().ok()).collect(),
            global: GLOBAL_IPV6.parse().ok(),
            deny_ipv6: DENIED_IPV6
                .iter()
                .filter_map(|net| net.parse().ok())
                .collect(),
        }
    }

    /// True if a callback may go to this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.allow.iter().any(|net| net.contains(&address)) {
            return true;
        }
        match address {
            IpAddr::V4(address) => self.allows_ipv4(address),
            IpAddr::V6(address) => self.allows_ipv6(address),
        }
    }

    fn allows_ipv4(&self, address: Ipv4Addr) -> bool {
        !self.deny.iter().any(|net| net.contains(&address))
    }

    fn allows_ipv6(&self, address: Ipv6Addr) -> bool {
        self.global.is_some_and(|net| net.contains(&address))
            && !self.deny_ipv6.iter().any(|net| net.contains(&address))
    }

    /// Checks the URL of a request: `http` or `https`, a host, no user, and no address that is denied. Names are checked when
    /// they are resolved.
    pub fn check_url(&self, url: &str) -> Result<(), &'static str> {
        let Ok(uri) = url.parse::<Uri>() else {
            return Err("it is no URL");
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("it must begin with `http://` or `https://`");
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("it must have no user or password");
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err("it has no host");
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse() {
            Ok(address) if !self.allows(address) => {
                Err("its address is not one that VMs may reach (`callbacks.allow`)")
            }
            _ => Ok(()),
        }
    }
}

/// Resolves names to the addresses that are allowed. The connection goes to one of these, so that a name cannot resolve to
/// another address after the check (DNS rebinding).
pub struct Resolver(pub Arc<Egress>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| egress.allows(address.ip()))
                .collect();
            match allowed.is_empty() {
                true => Err("the name has no address that VMs may reach".into()),
                false => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_the_internet() {
        let egress = Egress::new(&["10.9.0.0/16".to_owned()]);
        for url in [
            "https://example.com/done?x=1",
            "http://example.com:8080",
            "http://93.184.215.14/",
            "http://10.9.1.1/",
            "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
        ] {
            assert_eq!(egress.check_url(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "example.com",
            "ftp://example.com/",
            "file:///etc/passwd",
            "http:///x",
            "http://user:word@example.com/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[64:ff9b::a00:1]/",
            "http://[2002:a00:1::]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://192.168.1.1/",
            "http://0.0.0.0/",
        ] {
            assert!(egress.check_url(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_of_a_denied_address_does_not_resolve() {
        let resolver = Resolver(Arc::new(Egress::new(&[])));
        let name: Name = "localhost".parse().unwrap();
        assert!(resolver.resolve(name).await.is_err());
    }
}
