//! The walls around a VM with a network: the device holds while the host's rules are removed, and the result names what
//! was denied.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloude_e2e::backend::{BRIDGE_ADDRESS, Backend};
use cloude_e2e::{cloude, host};
use cloude_protocol::network::{DenyReason, NetworkReport};

const OPTIONS: &[&str] = &["--timeout", cloude::LONGEST, "--network"];

fn denied(report: &NetworkReport) -> Vec<(&str, Option<IpAddr>, Option<u16>, DenyReason)> {
    let entries = report.denied.iter();
    entries
        .map(|entry| {
            (
                entry.protocol.as_str(),
                entry.address,
                entry.port,
                entry.reason,
            )
        })
        .collect()
}

#[test]
fn flushing_the_hosts_rules_opens_nothing() {
    let backend = Backend::start("");
    // Sets the network up.
    let first = cloude::bash(&backend, OPTIONS, "echo first");
    assert_eq!(first.stdout.to_text(), "first\n", "{first:?}");
    let listener = TcpListener::bind((BRIDGE_ADDRESS, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    // The control: the host can connect.
    TcpStream::connect((BRIDGE_ADDRESS, port)).unwrap();
    host::wait_for("the host's own connection", || listener.accept().ok());

    let done = Arc::new(AtomicBool::new(false));
    // A thread has the network namespace of its parent. The rules come back after each flush.
    let flushes = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                host::run("nft", &["flush", "ruleset"]);
                count += 1;
                host::wait_for("the rules are back", || {
                    let rules = host::rules();
                    (rules.contains("chain input") && rules.contains("chain prerouting"))
                        .then_some(())
                });
            }
            count
        }
    });
    let code = format!(
        "for i in 1 2 3 4 5 6 7 8; do timeout 1 bash -c '</dev/tcp/{BRIDGE_ADDRESS}/{port}' 2>/dev/null && echo reached; done; echo end"
    );
    let execution = cloude::bash(&backend, OPTIONS, &code);
    done.store(true, Ordering::Relaxed);
    let count = flushes.join().unwrap();

    assert!(count > 1, "the rules were flushed {count} times");
    assert_eq!(execution.stdout.to_text(), "end\n", "{execution:?}");
    assert!(listener.accept().is_err(), "a connection was accepted");
    let report = execution.network.unwrap();
    let address = Some(BRIDGE_ADDRESS.parse().unwrap());
    let entry = ("tcp", address, Some(port), DenyReason::Destination);
    assert!(denied(&report).contains(&entry), "{report:?}");
    backend.stop();
}

#[test]
fn the_result_names_what_was_denied() {
    let backend = Backend::start("");
    let code = "for to in 169.254.169.254/80 10.1.2.3/443 8.8.8.8/25 172.31.7.77/7; do echo x >/dev/udp/$to; done; echo end";

    let execution = cloude::bash(&backend, OPTIONS, code);

    assert_eq!(execution.stdout.to_text(), "end\n", "{execution:?}");
    let report = execution.network.unwrap();
    let udp = |address: [u8; 4], port, reason| {
        let address = IpAddr::V4(Ipv4Addr::from(address));
        ("udp", Some(address), Some(port), reason)
    };
    let neighbour = IpAddr::V4(Ipv4Addr::new(172, 31, 7, 77));
    let wanted = [
        udp([169, 254, 169, 254], 80, DenyReason::Destination),
        udp([10, 1, 2, 3], 443, DenyReason::Destination),
        udp([8, 8, 8, 8], 25, DenyReason::Port),
        ("arp", Some(neighbour), None, DenyReason::Destination),
    ];
    let seen = denied(&report);
    assert_eq!(seen.len(), wanted.len(), "{report:?}");
    for entry in wanted {
        assert!(seen.contains(&entry), "{entry:?}: {report:?}");
    }
    // Without a network there is nothing to report.
    let offline = cloude::bash(&backend, &["--timeout", cloude::LONGEST], "echo end");
    assert_eq!(offline.network, None);
    backend.stop();
}
