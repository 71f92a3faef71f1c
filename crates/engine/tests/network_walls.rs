//! What others do to the network of a running engine, and what it does to theirs. Each test runs in a separate network
//! namespace. Needs root and nft.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod frames;
mod namespace;

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cloude_engine::config;
use cloude_engine::network::{Network, NetworkError, clean_up, tap, tap_prefix};
use frames::{mac_of, udp};
use namespace::{inside, output};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn on(bridge: &str, range: &str) -> config::Network {
    config::Network {
        bridge: bridge.into(),
        range: range.into(),
        ..config::Network::default()
    }
}

async fn set_up(config: &config::Network, state: &Path) -> Result<Network, NetworkError> {
    Network::set_up(config, state, None).await
}

fn rules() -> String {
    output("nft", &["list", "ruleset"])
}

fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Waits until the condition holds, for at most two minutes.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: {}", rules());
}

#[tokio::test]
async fn flushed_rules_come_back_with_the_live_vms() {
    if !inside("flushed_rules_come_back_with_the_live_vms") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = set_up(&on("auto", "172.31.0.0/24"), state.path())
        .await
        .unwrap();
    let online = network.attach(true).await.unwrap();
    let offline = network.attach(false).await.unwrap();
    let before = rules();
    assert!(before.contains(&online.name) && before.contains(&offline.name));

    run("nft flush ruleset");
    until("the rules are back", || rules() == before).await;

    // Again, and without a VM that has ended.
    network.detach(offline).await;
    let before = rules();
    run("nft flush ruleset");
    until("the rules are back a second time", || rules() == before).await;
    assert_eq!(*network.broken().borrow(), None);
    network.detach(online).await;
    network.remove().await;
    assert_eq!(rules(), "", "the watcher outlives the network");
}

#[tokio::test]
async fn a_changed_rule_is_put_back() {
    if !inside("a_changed_rule_is_put_back") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = set_up(&on("auto", "172.31.0.0/24"), state.path())
        .await
        .unwrap();
    let before = rules();
    for change in [
        "nft flush chain inet cloude_cloude0 input",
        "nft insert rule inet cloude_cloude0 forward accept",
        "nft delete table bridge cloude_cloude0",
    ] {
        run(change);
        until(change, || rules() == before).await;
    }
    network.remove().await;
}

#[tokio::test]
async fn a_vm_starts_although_the_rules_were_flushed() {
    if !inside("a_vm_starts_although_the_rules_were_flushed") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = set_up(&on("auto", "172.31.0.0/24"), state.path())
        .await
        .unwrap();
    for _ in 0..10 {
        run("nft flush ruleset");
        let attachment = network.attach(true).await.unwrap();
        until("the VM is admitted", || rules().contains(&attachment.name)).await;
        network.detach(attachment).await;
    }
    network.remove().await;
}

#[tokio::test]
async fn rules_that_cannot_come_back_are_reported() {
    if !inside("rules_that_cannot_come_back_are_reported") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = set_up(&on("auto", "172.31.0.0/24"), state.path())
        .await
        .unwrap();
    let attachment = network.attach(true).await.unwrap();
    // In the test's own mount namespace.
    let nft = output("sh", &["-c", "PATH=$PATH:/usr/sbin:/sbin command -v nft"]);
    let nft = nft.trim();
    let copy = state.path().join("nft");
    std::fs::copy(nft, &copy).unwrap();
    run(&format!("mount --bind /bin/false {nft}"));

    run(&format!("{} flush ruleset", copy.display()));
    let mut broken = network.broken();
    let reason = broken.wait_for(Option::is_some).await.unwrap().clone();
    assert!(reason.unwrap().contains("nft refused the rules"));

    run(&format!("umount {nft}"));
    let next = network.attach(true).await.unwrap();
    assert_eq!(*broken.borrow(), None);
    assert!(rules().contains(&next.name) && rules().contains(&attachment.name));
    network.remove().await;
}

#[tokio::test]
async fn a_bridge_in_use_is_refused_with_its_user() {
    if !inside("a_bridge_in_use_is_refused_with_its_user") {
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = set_up(&on("br7", "172.31.0.0/24"), one.path())
        .await
        .unwrap();
    let attachment = first.attach(true).await.unwrap();
    let before = (output("ip", &["-brief", "address"]), rules());

    let error = set_up(&on("br7", "172.29.0.0/24"), two.path()).await;

    let text = error.unwrap_err().to_string();
    for part in [
        "br7",
        &std::process::id().to_string(),
        one.path().to_str().unwrap(),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!((output("ip", &["-brief", "address"]), rules()), before);
    assert_eq!(std::fs::read_dir(two.path()).unwrap().count(), 0);
    first.detach(attachment).await;
    first.remove().await;
}

#[tokio::test]
async fn a_bridge_that_another_engine_left_is_refused() {
    if !inside("a_bridge_that_another_engine_left_is_refused") {
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = on("br7", "172.31.0.0/24");
    drop(set_up(&config, one.path()).await.unwrap());

    let text = set_up(&config, two.path()).await.unwrap_err().to_string();
    assert!(
        text.contains(one.path().to_str().unwrap()) && text.contains("ip link delete br7"),
        "{text}"
    );
    // Its owner takes it again.
    set_up(&config, one.path()).await.unwrap().remove().await;
    set_up(&config, two.path()).await.unwrap().remove().await;
    assert_eq!(rules(), "");
}

#[tokio::test]
async fn a_foreign_bridge_is_refused_and_untouched() {
    if !inside("a_foreign_bridge_is_refused_and_untouched") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    run("ip link add docker0 type bridge");
    run("ip address add 172.17.0.1/16 dev docker0");
    run("ip link set docker0 up");
    let before = output("ip", &["address"]);

    clean_up(state.path()).await.unwrap();
    let error = set_up(&on("docker0", "172.31.0.0/24"), state.path()).await;

    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("docker0") && text.contains("network.bridge"),
        "{text}"
    );
    assert_eq!(output("ip", &["address"]), before);
    assert_eq!(rules(), "");
}

#[tokio::test]
async fn two_engines_with_auto_share_nothing() {
    if !inside("two_engines_with_auto_share_nothing") {
        return;
    }
    std::fs::write(IP_FORWARD, "0").unwrap();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = config::Network::default();
    let first = set_up(&config, one.path()).await.unwrap();
    let second = set_up(&config, two.path()).await.unwrap();
    assert_eq!((first.bridge(), second.bridge()), ("cloude0", "cloude1"));
    assert_eq!(first.range().cidr(), "172.30.0.0/16");
    assert_eq!(second.range().cidr(), "172.29.0.0/16");
    let attachment = first.attach(true).await.unwrap();

    // The end of one, and the clean-up of a third, leave the other as it is.
    let other = tempfile::tempdir().unwrap();
    clean_up(other.path()).await.unwrap();
    second.remove().await;
    let links = output("ip", &["-brief", "link"]);
    assert!(links.contains("cloude0") && links.contains(&attachment.name));
    assert!(!links.contains("cloude1"), "{links}");
    assert!(rules().contains(&attachment.name) && !rules().contains("cloude1"));
    assert_eq!(std::fs::read_to_string(IP_FORWARD).unwrap(), "1\n");

    first.detach(attachment).await;
    first.remove().await;
    assert_eq!(std::fs::read_to_string(IP_FORWARD).unwrap(), "0\n");
}

/// A TAP that is up and has an address, with the host's MAC and a neighbour behind it.
fn uplink(name: &str, address: &str, neighbour: &str) -> File {
    let tap = tap::create(name).unwrap();
    run(&format!("ip address add {address}/24 dev {name}"));
    run(&format!("ip link set {name} up"));
    run(&format!(
        "ip neigh add {neighbour} lladdr 02:00:00:00:00:01 dev {name}"
    ));
    tap
}

/// Reads frames from a TAP until a UDP packet to `last`; returns the ports of the UDP packets before.
async fn ports_before(tap: &File, last: u16) -> Vec<u16> {
    let mut ports = Vec::new();
    let mut frame = [0; 2048];
    for _ in 0..60_000 {
        let Ok(count) = rustix::io::read(tap, &mut frame) else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        // virtio-net header 10, Ethernet 14, IPv4 20.
        if count < 48 || frame[22..24] != [0x08, 0x00] || frame[33] != 17 {
            continue;
        }
        let port = u16::from_be_bytes([frame[46], frame[47]]);
        if port == last {
            return ports;
        }
        ports.push(port);
    }
    panic!("no packet to port {last} arrived");
}

#[tokio::test]
async fn other_interfaces_are_not_connected() {
    if !inside("other_interfaces_are_not_connected") {
        return;
    }
    const ALLOWED: u16 = 2;
    let inner = uplink("inner", "192.168.1.1", "192.168.1.9");
    let outer = uplink("outer", "8.8.4.4", "8.8.4.8");
    let far = Ipv4Addr::new(8, 8, 4, 8);
    let (inner_mac, neighbour) = (mac_of("inner"), [2, 0, 0, 0, 0, 1]);
    let through = |port| {
        let from = Ipv4Addr::new(192, 168, 1, 9);
        let frame = udp(neighbour, inner_mac, from, far, port);
        rustix::io::write(&inner, &frame).unwrap();
    };
    for (before, forwarded) in [("0", vec![]), ("1", vec![1])] {
        std::fs::write(IP_FORWARD, before).unwrap();
        let state = tempfile::tempdir().unwrap();
        let network = set_up(&on("auto", "172.31.0.0/24"), state.path())
            .await
            .unwrap();
        let vm = network.attach(true).await.unwrap();

        through(1);
        let frame = udp(
            vm.lease.mac(),
            mac_of(network.bridge()),
            vm.lease.ip(),
            far,
            ALLOWED,
        );
        rustix::io::write(vm.tap.as_ref().unwrap(), &frame).unwrap();

        assert_eq!(
            ports_before(&outer, ALLOWED).await,
            forwarded,
            "ip_forward was {before}"
        );
        network.detach(vm).await;
        network.remove().await;
        let after = std::fs::read_to_string(IP_FORWARD).unwrap();
        assert_eq!(after.trim(), before);
    }
}

#[tokio::test]
async fn a_vm_receives_only_its_own_frames() {
    if !inside("a_vm_receives_only_its_own_frames") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let network = set_up(&on("auto", "172.31.0.0/24"), state.path())
        .await
        .unwrap();
    let (mine, other) = (
        network.attach(true).await.unwrap(),
        network.attach(true).await.unwrap(),
    );
    // A machine that has never sent a frame, and another VM's address.
    run("ip neigh add 172.31.0.77 lladdr 02:00:00:00:00:77 dev cloude0 nud permanent");
    let host = UdpSocket::bind("172.31.0.1:0").unwrap();
    for (to, port) in [
        ("172.31.0.77".parse().unwrap(), 1),
        (other.lease.ip(), 2),
        (mine.lease.ip(), 4),
    ] {
        host.send_to(b"x", (to, port)).unwrap();
    }
    let before = ports_before(mine.tap.as_ref().unwrap(), 4).await;
    assert!(before.is_empty(), "flooded: {before:?}");

    let mac = mine.lease.mac().map(|byte| format!("{byte:02x}")).join(":");
    let entry = format!("{mac} dev {} master cloude0 static", mine.name);
    let fdb = output("bridge", &["fdb", "show", "br", "cloude0"]);
    assert!(fdb.contains(&entry), "{entry}: {fdb}");
    // A frame from another MAC teaches the bridge nothing.
    let stranger = [2, 0, 0, 0, 0, 99];
    let bridge = mac_of("cloude0");
    let to = Ipv4Addr::new(172, 31, 0, 1);
    let frame = udp(stranger, bridge, mine.lease.ip(), to, 9);
    rustix::io::write(mine.tap.as_ref().unwrap(), &frame).unwrap();
    host.send_to(b"x", (mine.lease.ip(), 5)).unwrap();
    ports_before(mine.tap.as_ref().unwrap(), 5).await;
    let fdb = output("bridge", &["fdb", "show", "br", "cloude0"]);
    assert!(!fdb.contains("02:00:00:00:00:63"), "{fdb}");
    network.remove().await;
}

#[tokio::test]
async fn links_with_a_similar_name_are_not_removed() {
    if !inside("links_with_a_similar_name_are_not_removed") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let name = format!("{}deadbeef", tap_prefix("cloude0"));
    run(&format!("ip tuntap add {name} mode tap"));
    run("ip link add cloude0 type bridge");
    let before = output("ip", &["-brief", "link"]);

    clean_up(state.path()).await.unwrap();
    let network = set_up(&config::Network::default(), state.path())
        .await
        .unwrap();
    assert_eq!(network.bridge(), "cloude1");
    network.remove().await;

    assert_eq!(output("ip", &["-brief", "link"]), before);
}
