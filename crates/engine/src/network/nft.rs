//! The packet filter: what a VM may send, and to whom. Applied with `nft -f -`, which takes a whole
//! file as one transaction.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use super::addresses::Range;
use super::error::NetworkError;

/// What a VM never reaches unless `network.allow` names it: "this" network, private, shared (RFC 6598),
/// loopback, link-local with the metadata services, IETF, documentation, benchmarks, multicast and
/// reserved (RFC 6890).
const DENIED: [&str; 14] = [
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

/// What the rules are made for.
pub struct Rules<'a> {
    /// The bridge.
    pub bridge: &'a str,
    /// What the names of all its TAPs start with.
    pub tap_prefix: &'a str,
    /// The VMs' subnet.
    pub range: &'a Range,
    /// Exceptions to what is denied.
    pub allow: &'a [String],
}

impl Rules<'_> {
    /// The table's name, in both families.
    pub fn table(bridge: &str) -> String {
        // A table's name has no `-`.
        format!("cloude_{}", bridge.replace('-', "_"))
    }

    /// A script that makes both tables anew, whatever was there.
    pub fn script(&self) -> String {
        let Rules {
            bridge,
            tap_prefix,
            range,
            allow,
        } = self;
        let table = Rules::table(bridge);
        let subnet = range.cidr();
        let denied = DENIED.join(", ");
        let mut allowed = String::new();
        if !allow.is_empty() {
            let _ = write!(allowed, "elements = {{ {} }}", allow.join(", "));
        }
        let mut script = Rules::removal(bridge);
        // A VM talks to the host only in answer; so that not even an established connection of the
        // host's to elsewhere is joined, both chains match the bridge first. Within the bridge
        // nothing is forwarded: the ports are isolated, and routing back in is dropped here.
        let _ = write!(
            script,
            r#"table inet {table} {{
  set denied {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {denied} }} }}
  set allowed {{ type ipv4_addr; flags interval; auto-merge; {allowed} }}
  set outbound {{ type ipv4_addr; }}
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
    drop
  }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
    iifname != "{bridge}" oifname != "{bridge}" accept
    iifname "{bridge}" oifname "{bridge}" drop
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
    meta nfproto ipv6 drop
    ip saddr != @outbound drop
    ip daddr @allowed accept
    ip daddr @denied drop
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

    /// A script that removes both tables, whether they are there or not.
    pub fn removal(bridge: &str) -> String {
        let table = Rules::table(bridge);
        // Declaring first makes the deletion succeed where there was none.
        format!(
            "table inet {table}\ndelete table inet {table}\ntable bridge {table}\ndelete table bridge {table}\n"
        )
    }
}

/// One VM's entries.
pub struct VmRule<'a> {
    /// The bridge.
    pub bridge: &'a str,
    /// Its TAP.
    pub tap: &'a str,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its address.
    pub ip: Ipv4Addr,
    /// May it reach beyond the host?
    pub outbound: bool,
}

impl VmRule<'_> {
    /// Adding before deleting makes a deletion succeed where there was nothing: what a VM that was
    /// never taken back left behind is neither in the way nor inherited.
    fn script(&self, leased: bool, outbound: bool) -> String {
        let table = Rules::table(self.bridge);
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        let (tap, ip) = (self.tap, self.ip);
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

    /// Lets the VM's own packets through.
    pub async fn add(&self) -> Result<(), NetworkError> {
        apply(&self.script(true, self.outbound)).await
    }

    /// Takes that back.
    pub async fn remove(&self) -> Result<(), NetworkError> {
        apply(&self.script(false, false)).await
    }
}

/// Runs `nft -f -`.
pub async fn apply(script: &str) -> Result<(), NetworkError> {
    let mut child = tokio::process::Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", tool_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::Nft)?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft may end before it has read all; its own message is better than a broken pipe.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(NetworkError::Nft)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::NftRefused(message))
}

/// PATH with the directories of `nft`, which a user's PATH often lacks.
fn tool_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bridges_have_tables_of_their_own() {
        assert_eq!(Rules::table("cloude0"), "cloude_cloude0");
        assert_ne!(Rules::table("br-a"), Rules::table("br-b"));
    }

    #[test]
    fn an_exception_is_in_the_set_of_allowed() {
        let range = Range::parse("172.30.0.0/16", None).unwrap();
        let allow = ["10.1.0.0/16".to_owned()];
        let rules = Rules {
            bridge: "b",
            tap_prefix: "ct",
            range: &range,
            allow: &allow,
        };
        assert!(rules.script().contains("elements = { 10.1.0.0/16 }"));
    }
}
