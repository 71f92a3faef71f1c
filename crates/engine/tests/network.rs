//! Set-up, rules and removal of the network, in a separate network namespace. Needs root and nft.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod frames;
mod namespace;

use std::net::Ipv4Addr;
use std::process::Command;

use cloude_engine::config;
use cloude_engine::network::{Network, clean_up, tap, tap_prefix};
use frames::{mac_of, udp};
use namespace::{inside, output};

fn links() -> String {
    output("ip", &["-brief", "link"])
}

fn rules() -> String {
    output("nft", &["list", "ruleset"])
}

fn forwarding() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .unwrap()
        .trim()
        .to_owned()
}

fn network() -> config::Network {
    config::Network {
        range: "172.31.0.0/29".into(),
        ..config::Network::default()
    }
}

#[tokio::test]
async fn removal_leaves_no_link_rule_or_sysctl() {
    if !inside("removal_leaves_no_link_rule_or_sysctl") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    let network = Network::set_up(&network(), state.path(), None)
        .await
        .unwrap();
    assert!(links().contains("cloude0"), "{}", links());
    assert!(output("ip", &["-4", "address", "show", "cloude0"]).contains("172.31.0.1/29"));
    assert!(rules().contains("table inet cloude_cloude0") && rules().contains("masquerade"));
    assert_eq!(forwarding(), "1");

    let online = network.attach(true).await.unwrap();
    let offline = network.attach(false).await.unwrap();
    assert_ne!(online.lease.ip(), offline.lease.ip());
    // Not the MAC of a port.
    assert_eq!(mac_of("cloude0"), [0x02, 0xc1, 172, 31, 0, 1]);
    let bridge = output("bridge", &["-d", "link", "show"]);
    assert_eq!(bridge.matches("isolated on").count(), 2, "{bridge}");
    let table = rules();
    for attachment in [&online, &offline] {
        assert!(table.contains(&attachment.name), "{table}");
    }
    let outbound = output(
        "nft",
        &["list", "set", "inet", "cloude_cloude0", "outbound"],
    );
    assert!(
        outbound.contains(&online.lease.ip().to_string()),
        "{outbound}"
    );
    assert!(
        !outbound.contains(&offline.lease.ip().to_string()),
        "{outbound}"
    );

    let name = online.name.clone();
    network.detach(online).await;
    assert!(
        !rules().contains(&name) && !links().contains(&name),
        "the TAP exists without its descriptor"
    );
    network.detach(offline).await;
    network.remove().await;
    assert!(!links().contains("cloude0"), "{}", links());
    assert_eq!(rules(), "");
    assert_eq!(forwarding(), "0");
    assert_eq!(
        std::fs::read_dir(state.path()).unwrap().count(),
        0,
        "a file is left in the state folder"
    );
}

/// The host's neighbour entries on the bridge.
fn neighbours() -> String {
    output("ip", &["neigh", "show", "dev", "cloude0"])
}

#[tokio::test]
async fn a_failed_arp_does_not_keep_the_host_from_a_vm() {
    if !inside("a_failed_arp_does_not_keep_the_host_from_a_vm") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = Network::set_up(&network(), state.path(), None)
        .await
        .unwrap();
    let first = "172.31.0.2";
    output(
        "ip",
        &["neigh", "add", first, "dev", "cloude0", "nud", "failed"],
    );

    let attachment = network.attach(false).await.unwrap();

    assert_eq!(attachment.lease.ip().to_string(), first);
    let entry = format!("{first} lladdr 02:c1:ac:1f:00:02 PERMANENT");
    assert_eq!(neighbours().trim(), entry);
    network.detach(attachment).await;
    assert_eq!(neighbours(), "", "the address is free for another VM");
    network.remove().await;
}

#[tokio::test]
async fn every_address_of_the_range_is_used_once() {
    if !inside("every_address_of_the_range_is_used_once") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = Network::set_up(&network(), state.path(), None)
        .await
        .unwrap();
    let mut held = Vec::new();
    for last in 2..=6 {
        let attachment = network.attach(true).await.unwrap();
        assert_eq!(attachment.lease.ip(), Ipv4Addr::new(172, 31, 0, last));
        held.push(attachment);
    }
    let error = network.attach(true).await.unwrap_err().to_string();
    assert!(error.contains("all 5 addresses"), "{error}");
    network.detach(held.remove(2)).await;
    assert_eq!(
        network.attach(true).await.unwrap().lease.ip(),
        Ipv4Addr::new(172, 31, 0, 4)
    );
}

#[tokio::test]
async fn clean_up_removes_what_a_killed_process_left() {
    if !inside("clean_up_removes_what_a_killed_process_left") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    let killed = Network::set_up(&network(), state.path(), None)
        .await
        .unwrap();
    let attachment = killed.attach(true).await.unwrap();
    // The state after SIGKILL. A persistent TAP with our mark is the worst case.
    let stale = format!("{}deadbeef", tap_prefix("cloude0"));
    output("ip", &["tuntap", "add", &stale, "mode", "tap"]);
    let mark = format!("cloude:{}", state.path().display());
    output("ip", &["link", "set", &stale, "alias", &mark]);
    let foreign = format!("{}deadbee0", tap_prefix("cloude0"));
    output("ip", &["tuntap", "add", &foreign, "mode", "tap"]);
    assert!(links().contains(&stale));
    // Without `remove`: the process ends, and its lock with it.
    drop(killed);
    drop(attachment);

    clean_up(state.path()).await.unwrap();
    assert!(links().contains(&foreign), "only the name is ours");
    output("ip", &["link", "delete", &foreign]);
    assert!(
        !links().contains("cloude0") && !links().contains(&stale),
        "{}",
        links()
    );
    assert_eq!((rules().as_str(), forwarding().as_str()), ("", "0"));

    let again = Network::set_up(&network(), state.path(), None)
        .await
        .unwrap();
    let again = (again.attach(true).await.unwrap(), again);
    assert!(rules().contains(&again.0.name));
}

/// Destination port of an allowed packet. It leaves the host after all packets that were sent before it.
const LAST: u16 = 5354;

/// Sources of the UDP packets that left the host before one to [`LAST`]. A TAP plays the uplink.
async fn sent(uplink: &std::fs::File) -> Vec<Ipv4Addr> {
    let mut sources = Vec::new();
    let mut frame = [0; 2048];
    for _ in 0..60_000 {
        let Ok(count) = rustix::io::read(uplink, &mut frame) else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        // virtio-net header 10, Ethernet 14: EtherType IPv4, protocol UDP, source address, UDP's ports.
        let packet = &frame[..count];
        if count < 48 || packet[22..24] != [0x08, 0x00] || packet[33] != 17 {
            continue;
        }
        if packet[46..48] == LAST.to_be_bytes() {
            return sources;
        }
        sources.push(Ipv4Addr::new(
            packet[36], packet[37], packet[38], packet[39],
        ));
    }
    panic!("the allowed packet did not leave");
}

#[tokio::test]
async fn a_vm_cannot_spoof_or_reach_denied_networks() {
    if !inside("a_vm_cannot_spoof_or_reach_denied_networks") {
        return;
    }
    let uplink = tap::create("out").unwrap();
    for command in [
        "ip address add 8.8.4.4/24 dev out",
        "ip link set out up",
        "ip neigh add 8.8.4.8 lladdr 02:00:00:00:00:01 dev out",
        "ip route add 10.0.0.0/8 via 8.8.4.8",
        "ip route add 169.254.169.254 via 8.8.4.8",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(
            Command::new(words[0])
                .args(&words[1..])
                .status()
                .unwrap()
                .success(),
            "{command}"
        );
    }
    let state = tempfile::tempdir().unwrap();
    let config = config::Network {
        allow: vec!["10.7.0.0/16".into()],
        ..network()
    };
    let network = Network::set_up(&config, state.path(), None).await.unwrap();
    let online = network.attach(true).await.unwrap();
    let offline = network.attach(false).await.unwrap();
    let host = std::net::UdpSocket::bind("172.31.0.1:5353").unwrap();
    host.set_nonblocking(true).unwrap();
    let bridge = mac_of("cloude0");

    let (me, other) = (online.lease.ip(), offline.lease.ip());
    let mac = online.lease.mac();
    let mac_of_online = mac;
    let far = Ipv4Addr::new(8, 8, 4, 8);
    let table = [
        ("its own address, to the internet", &online, mac, me, far, 1),
        ("another's address", &online, mac, other, far, 0),
        ("another's MAC", &online, offline.lease.mac(), me, far, 0),
        (
            "the metadata service",
            &online,
            mac,
            me,
            Ipv4Addr::new(169, 254, 169, 254),
            0,
        ),
        (
            "a private network",
            &online,
            mac,
            me,
            Ipv4Addr::new(10, 1, 2, 3),
            0,
        ),
        (
            "a private network that is allowed",
            &online,
            mac,
            me,
            Ipv4Addr::new(10, 7, 2, 3),
            1,
        ),
        (
            "without a network",
            &offline,
            offline.lease.mac(),
            other,
            far,
            0,
        ),
        (
            "to the host",
            &online,
            mac,
            me,
            Ipv4Addr::new(172, 31, 0, 1),
            0,
        ),
    ];
    for (case, from, mac, source, to, expected) in table {
        let frame = udp(mac, bridge, source, to, 5353);
        rustix::io::write(from.tap.as_ref().unwrap(), &frame).unwrap();
        let last = udp(mac_of_online, bridge, me, far, LAST);
        rustix::io::write(online.tap.as_ref().unwrap(), &last).unwrap();
        // The source address is masqueraded.
        assert_eq!(
            sent(&uplink).await,
            vec![Ipv4Addr::new(8, 8, 4, 4); expected],
            "{case}"
        );
    }
    assert!(host.recv(&mut [0; 64]).is_err(), "nothing reached the host");
    network.remove().await;
}
