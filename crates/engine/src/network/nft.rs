//! Firewall rules of the bridge, in nftables. `nft -f -` applies a script as one transaction.

use std::fmt::{Display, Write as _};
use std::net::Ipv4Addr;
use std::process::Stdio;

use ipnet::Ipv4Net;
use tokio::io::AsyncWriteExt;

use super::addresses::Range;
use super::error::NetworkError;
use super::policy::Policy;

/// The link group (IFLA_GROUP) of the bridges of all engines.
pub const GROUP: u32 = 0xc10d0;
/// The group of a bridge whose engine has switched `ip_forward` on.
pub const FORWARDING_GROUP: u32 = 0xc10d1;

/// Name of the tables in the families `inet` and `bridge`.
pub fn table(bridge: &str) -> String {
    // nft does not accept `-` in the name of a table.
    format!("cloude_{}", bridge.replace('-', "_"))
}

/// Parameters of the rules of a bridge.
pub struct Rules<'a> {
    pub bridge: &'a str,
    /// Prefix of the names of its TAPs.
    pub tap_prefix: &'a str,
    /// Subnet of the VMs.
    pub range: &'a Range,
    pub policy: &'a Policy,
    /// This engine has switched `ip_forward` on: packets of other interfaces are not forwarded.
    pub forwarding: bool,
}

/// An anonymous set; `None` if it were empty, which nft refuses.
fn set(elements: impl IntoIterator<Item = impl Display>) -> Option<String> {
    let elements: Vec<String> = elements.into_iter().map(|e| e.to_string()).collect();
    (!elements.is_empty()).then(|| format!("{{ {} }}", elements.join(", ")))
}

impl Rules<'_> {
    /// A script that replaces both tables. All sets but those of VMs are anonymous, so that a listing without
    /// elements shows every rule.
    pub fn script(&self) -> String {
        let Rules {
            bridge,
            tap_prefix,
            range,
            policy,
            forwarding,
        } = self;
        let table = table(bridge);
        let subnet = range.cidr();
        let denied = policy.deny().iter().map(ToString::to_string);
        let denied = set(denied).unwrap_or_else(|| "{ 0.0.0.0/0 }".to_owned());
        let mut allow = String::new();
        if let Some(ports) = set(policy.deny_ports()) {
            let _ = write!(
                allow,
                "    tcp dport {ports} drop\n    udp dport {ports} drop\n"
            );
        }
        // Overlapping networks are refused in an anonymous set.
        if let Some(networks) = set(Ipv4Net::aggregate(&policy.allow().to_vec())) {
            let _ = writeln!(allow, "    ip daddr {networks} accept");
        }
        if let Some(servers) = set(policy.dns()) {
            let _ = write!(
                allow,
                "    ip daddr {servers} tcp dport 53 accept\n    ip daddr {servers} udp dport 53 accept\n"
            );
        }
        // Bridges of other engines decide for themselves.
        let mut others = String::new();
        if *forwarding {
            let groups = format!("{{ {GROUP}, {FORWARDING_GROUP} }}");
            let _ = writeln!(
                others,
                "    iifname != \"{bridge}\" oifname != \"{bridge}\" iifgroup != {groups} oifgroup != {groups} ct state != {{ established, related }} drop"
            );
        }
        let mut script = removal(bridge);
        // A VM may only answer connections of the host. Both chains match the bridge first, so that a VM cannot inject
        // packets into an established connection of another interface. The ports are isolated at layer 2, and the
        // chain `forward` drops packets that are routed back into the bridge.
        let _ = write!(
            script,
            r#"table inet {table} {{
  set outbound {{ type ipv4_addr; }}
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
    drop
  }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
{others}    iifname != "{bridge}" oifname != "{bridge}" accept
    iifname "{bridge}" oifname "{bridge}" drop
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
    meta nfproto ipv6 drop
    ip saddr != @outbound drop
{allow}    ip daddr {denied} drop
    accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
}}
table bridge {table} {{
  set leases {{ typeof iifname . ether saddr . ip saddr; }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{tap_prefix}*" accept
    iifname . ether saddr . ip saddr @leases accept
    iifname . ether saddr . arp saddr ip @leases iifname . arp saddr ether . arp saddr ip @leases accept
    drop
  }}
}}
"#
        );
        script
    }
}

/// A script that removes both tables, if they exist.
pub fn removal(bridge: &str) -> String {
    let table = table(bridge);
    // `delete` fails without a table, so the script declares it first.
    format!(
        "table inet {table}\ndelete table inet {table}\ntable bridge {table}\ndelete table bridge {table}\n"
    )
}

/// Set elements of one VM.
#[derive(Clone, Debug)]
pub struct VmRule {
    pub tap: String,
    pub mac: [u8; 6],
    pub ip: Ipv4Addr,
    /// May connect to addresses beyond the host.
    pub outbound: bool,
}

impl VmRule {
    /// A script that accepts packets from the TAP with the VM's MAC and IP addresses.
    pub fn addition(&self, bridge: &str) -> String {
        self.script(bridge, true, self.outbound)
    }

    /// A script that removes the elements.
    pub fn removal(&self, bridge: &str) -> String {
        self.script(bridge, false, false)
    }

    /// Adds each element before it deletes it, because `delete` fails without one. Elements that an earlier VM with
    /// this address left are removed, too.
    fn script(&self, bridge: &str, leased: bool, outbound: bool) -> String {
        let table = table(bridge);
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        let (tap, ip) = (&self.tap, self.ip);
        let lease = format!("element bridge {table} leases {{ \"{tap}\" . {mac} . {ip} }}\n");
        let route = format!("element inet {table} outbound {{ {ip} }}\n");
        let mut script = format!("add {lease}add {route}");
        if !leased {
            let _ = write!(script, "delete {lease}");
        }
        if !outbound {
            let _ = write!(script, "delete {route}");
        }
        script
    }
}

/// Runs `nft -f -`.
pub async fn apply(script: &str) -> Result<(), NetworkError> {
    run(&["-f", "-"], script).await.map(drop)
}

/// Both tables without the elements of their named sets, which are those of VMs. Fails without a table.
pub async fn listing(bridge: &str) -> Result<String, NetworkError> {
    let table = table(bridge);
    let mut listing = String::new();
    // One command each: nft 1.0.6 does not find the first table of a script that lists two families.
    for family in ["inet", "bridge"] {
        let script = format!("list table {family} {table}\n");
        listing += &run(&["--terse", "--stateless", "-f", "-"], &script).await?;
    }
    Ok(listing)
}

async fn run(arguments: &[&str], script: &str) -> Result<String, NetworkError> {
    let mut child = tokio::process::Command::new("nft")
        .args(arguments)
        .env("PATH", tool_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::Nft)?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft may exit before it has read all. Its message on stderr explains more than EPIPE.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(NetworkError::Nft)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::NftRefused(message))
}

/// PATH with /usr/sbin and /sbin, which have `nft` and which the PATH of users often lacks.
fn tool_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn two_bridges_have_separate_tables() {
        assert_eq!(table("cloude0"), "cloude_cloude0");
        assert_ne!(table("br-a"), table("br-b"));
    }

    #[test]
    fn settings_are_in_the_rules() {
        let range = Range::parse("172.30.0.0/16", None).unwrap();
        let config = config::Network {
            allow: vec!["10.1.0.0/16".into(), "10.1.2.0/24".into()],
            dns: vec![Ipv4Addr::new(10, 0, 0, 2)],
            ..config::Network::default()
        };
        let policy = Policy::new(&config, range).unwrap();
        let rules = Rules {
            bridge: "b",
            tap_prefix: "ct",
            range: &range,
            policy: &policy,
            forwarding: false,
        };
        let script = rules.script();
        for rule in [
            "ip daddr { 10.1.0.0/16 } accept",
            "ip daddr { 10.0.0.2 } udp dport 53 accept",
            "tcp dport { 25 } drop",
        ] {
            assert!(script.contains(rule), "{rule}: {script}");
        }
        assert!(!script.contains("iifgroup"));
    }
}
