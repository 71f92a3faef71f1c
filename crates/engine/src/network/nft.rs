//! Firewall rules of the bridge, in nftables. `nft -f -` applies a script as one transaction.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use super::addresses::Range;
use super::error::NetworkError;
use super::policy::DENIED;

/// Parameters of the rules of a bridge.
pub struct Rules<'a> {
    pub bridge: &'a str,
    /// Prefix of the names of its TAPs.
    pub tap_prefix: &'a str,
    /// Subnet of the VMs.
    pub range: &'a Range,
    /// Exceptions from [`DENIED`].
    pub allow: &'a [String],
}

impl Rules<'_> {
    /// Name of the tables in the families `inet` and `bridge`.
    pub fn table(bridge: &str) -> String {
        // nft does not accept `-` in the name of a table.
        format!("cloude_{}", bridge.replace('-', "_"))
    }

    /// A script that replaces both tables.
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
        // A VM may only answer connections of the host. Both chains match the bridge first, so that a VM cannot inject
        // packets into an established connection of another interface. The ports are isolated at layer 2, and the
        // chain `forward` drops packets that are routed back into the bridge.
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

    /// A script that removes both tables, if they exist.
    pub fn removal(bridge: &str) -> String {
        let table = Rules::table(bridge);
        // `delete` fails without a table, so the script declares it first.
        format!(
            "table inet {table}\ndelete table inet {table}\ntable bridge {table}\ndelete table bridge {table}\n"
        )
    }
}

/// Set elements of one VM.
pub struct VmRule<'a> {
    pub bridge: &'a str,
    pub tap: &'a str,
    pub mac: [u8; 6],
    pub ip: Ipv4Addr,
    /// May connect to addresses beyond the host.
    pub outbound: bool,
}

impl VmRule<'_> {
    /// Adds each element before it deletes it, because `delete` fails without one. Elements that an earlier VM with
    /// this address left are removed, too.
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

    /// Accepts packets from the TAP with the VM's MAC and IP addresses.
    pub async fn add(&self) -> Result<(), NetworkError> {
        apply(&self.script(true, self.outbound)).await
    }

    /// Removes the elements.
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
        // nft may exit before it has read all. Its message on stderr explains more than EPIPE.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(NetworkError::Nft)?;
    if output.status.success() {
        return Ok(());
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

    #[test]
    fn two_bridges_have_separate_tables() {
        assert_eq!(Rules::table("cloude0"), "cloude_cloude0");
        assert_ne!(Rules::table("br-a"), Rules::table("br-b"));
    }

    #[test]
    fn network_allow_is_in_the_set_of_exceptions() {
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
