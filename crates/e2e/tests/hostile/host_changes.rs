//! Changes of the host that open a network which depends on the host's rules.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use cloude_e2e::backend::{BRIDGE, BRIDGE_ADDRESS, Backend};
use cloude_e2e::cloude::{self, LONGEST};
use cloude_e2e::{binaries, host};

use crate::case::{Case, case};

/// The table of the host's own firewall.
const HOSTS_TABLE: &str = "hosts_own";

/// Starts a server and a program that tries the host's port each second, changes the host once the program runs, and
/// asserts that the program never reaches the port.
fn stays_closed(
    name: &str,
    naive: &str,
    change: impl Fn(&Backend) + Send + Sync + 'static,
) -> Case {
    case(&format!("host::{name}"), naive, move || {
        let backend = Backend::start("vm.max_concurrent = 2");
        // The bridge is made for the first VM that has a network.
        cloude::bash(&backend, &["--timeout", LONGEST, "--network"], "true");
        let listener = TcpListener::bind((BRIDGE_ADDRESS, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        TcpStream::connect(target).unwrap();
        let (ip, port) = (target.ip(), target.port());
        // The program shows by a name that resolves to nothing that it runs: it waits for a file that the change
        // of the host cannot make, so its own clock ends it.
        let code = format!(
            "echo up; for i in 1 2 3 4 5 6 7 8; do timeout 2 bash -c '</dev/tcp/{ip}/{port}' 2>/dev/null && echo reached; sleep 1; done; echo end"
        );
        let arguments = [
            "run",
            "-l",
            "bash",
            "-c",
            &code,
            "--network",
            "--timeout",
            LONGEST,
        ];
        let mut client = cloude::command(&backend, &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = std::io::BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "up\n");

        change(&backend);

        let mut rest = String::new();
        std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
        client.wait().unwrap();
        assert_eq!(rest, "end\n");
        drop(listener);
        if host::rules().contains(HOSTS_TABLE) {
            host::run("nft", &["delete", "table", "inet", HOSTS_TABLE]);
        }
        backend.stop();
    })
}

/// A second `clouded` with the same bridge, and what it says before it ends.
fn second_server(bridge: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::write(
        folder.path().join("clouded.toml"),
        format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = {state:?}\nkernel = {:?}\nlanguages = {:?}\n[images]\ndir = {:?}\nauto_build = false\n[agent]\nbinary = {:?}\n[vm]\nworker = {:?}\n[network]\nbridge = {bridge:?}\nrange = \"172.31.7.0/24\"\n",
            binaries::kernel(),
            binaries::languages(),
            binaries::images(),
            binaries::agent(),
            binaries::binary("cloude-vmm"),
        ),
    )
    .unwrap();
    let log = folder.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let mut child = Command::new(binaries::binary("clouded"))
        .arg("--config")
        .arg(folder.path().join("clouded.toml"))
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    // It either refuses to start or serves; both show in its log.
    let ended = host::wait_for("the second server starts or ends", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        match child.try_wait().unwrap() {
            Some(status) => Some(!status.success()),
            None => text.contains("listening").then_some(false),
        }
    });
    if !ended {
        // SAFETY: takes no pointers; the child was not waited for, so that its process id was not reused.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        child.wait().unwrap();
    }
    (ended, std::fs::read_to_string(&log).unwrap())
}

fn links_of(prefix: &str) -> Vec<String> {
    let mut links = host::links();
    links.retain(|name| name.starts_with(prefix) || name == BRIDGE);
    links.sort();
    links
}

pub fn cases() -> Vec<Case> {
    vec![
        stays_closed(
            "ruleset_flushed",
            "`nft flush ruleset` opens the host to every running VM",
            |_| {
                host::run("nft", &["flush", "ruleset"]);
            },
        ),
        stays_closed(
            "firewall_reloaded",
            "a reload of the host's firewall removes the rules of the VMs",
            |_| {
                let mut child = Command::new("nft")
                    .args(["-f", "-"])
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let rules = format!(
                    "flush ruleset\ntable inet {HOSTS_TABLE} {{\n chain input {{ type filter hook input priority filter; policy accept; }}\n}}\n"
                );
                std::io::Write::write_all(&mut child.stdin.take().unwrap(), rules.as_bytes())
                    .unwrap();
                assert!(child.wait().unwrap().success());
            },
        ),
        stays_closed(
            "second_server_on_the_bridge",
            "a second server removes bridge, TAPs and rules of the first",
            |_| {
                let before = links_of("ct");
                let (refused, log) = second_server(BRIDGE);
                assert!(refused, "it started: {log}");
                assert!(log.contains(BRIDGE), "{log}");
                assert_eq!(links_of("ct"), before);
            },
        ),
        case(
            "host::bridge_of_somebody_else",
            "`network.bridge = \"docker0\"` deletes the bridge of Docker",
            || {
                binaries::require_kvm();
                host::isolate();
                host::run("ip", &["link", "add", "docker0", "type", "bridge"]);
                let (refused, log) = second_server("docker0");
                assert!(refused, "it started: {log}");
                assert!(log.contains("docker0"), "{log}");
                assert!(host::links().contains(&"docker0".to_owned()));
            },
        ),
        case(
            "host::forwarding_between_others",
            "the host becomes a router between its other networks",
            || {
                let backend = Backend::start("");
                // Two networks of the host, each with a machine.
                for (name, number) in [("left", 11), ("right", 12)] {
                    host::run("ip", &["netns", "add", name]);
                    host::run(
                        "ip",
                        &[
                            "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns",
                            name,
                        ],
                    );
                    host::run(
                        "ip",
                        &[
                            "address",
                            "add",
                            &format!("10.{number}.0.1/24"),
                            "dev",
                            name,
                        ],
                    );
                    host::run("ip", &["link", "set", name, "up"]);
                    for command in [
                        format!("address add 10.{number}.0.2/24 dev eth0"),
                        "link set eth0 up".to_owned(),
                        format!("route add default via 10.{number}.0.1"),
                    ] {
                        let mut arguments = vec!["-n", name];
                        arguments.extend(command.split(' '));
                        host::run("ip", &arguments);
                    }
                }
                let ping = |address: Ipv4Addr| {
                    Command::new("ip")
                        .args([
                            "netns",
                            "exec",
                            "left",
                            "ping",
                            "-c1",
                            "-W2",
                            &address.to_string(),
                        ])
                        .stdout(Stdio::null())
                        .status()
                        .unwrap()
                        .success()
                };
                let (host_side, other) = (Ipv4Addr::new(10, 11, 0, 1), Ipv4Addr::new(10, 12, 0, 2));
                let reached = (ping(host_side), ping(other));
                for name in ["left", "right"] {
                    host::run("ip", &["netns", "delete", name]);
                }
                host::wait_for("the networks are gone", || {
                    (!host::links()
                        .iter()
                        .any(|link| link == "left" || link == "right"))
                    .then_some(())
                });
                assert_eq!(reached, (true, false));
                backend.stop();
            },
        ),
    ]
}
