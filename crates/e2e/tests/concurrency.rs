//! Concurrent executions, a killed `clouded`, and a client that disconnects.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use cloude_e2e::backend::{BRIDGE, Backend};
use cloude_e2e::{cloude, curl, host};
use cloude_protocol::agent::Cause;

/// Prints the guest's IPv4 address: the `/32 host LOCAL` entry of /proc/net/fib_trie that is not loopback.
const PRINT_ADDRESS: &str = r#"
while read -r first second third; do
    case "$first $second $third" in
        "|-- "*) address=$second ;;
        "/32 host LOCAL") case $address in 127.*) ;; *) echo "$address" && exit ;; esac ;;
    esac
done < /proc/net/fib_trie
exit 1
"#;

const SIXTEEN: &str =
    "agent.transport = \"ip\"\nvm.max_concurrent = 16\nvm.memory_budget_mib = 4096";
const SMALL: [&str; 4] = ["--memory", "192", "--timeout", cloude::LONGEST];

#[test]
fn sixteen_vms_have_distinct_addresses_and_leave_nothing() {
    let backend = Backend::start(SIXTEEN);
    let children: Vec<_> = (0..16)
        .map(|_| cloude::start_bash(&backend, &SMALL, PRINT_ADDRESS))
        .collect();
    let mut addresses = BTreeSet::new();
    for child in children {
        let execution = cloude::execution(&child.wait_with_output().unwrap());
        assert_eq!(
            (execution.cause, execution.exit_code),
            (Cause::Exit, Some(0)),
            "{execution:?}"
        );
        let seen = execution.stdout.to_text().trim().to_owned();
        assert_eq!(
            Some(seen.clone()),
            execution.ip.map(|ip| ip.to_string()),
            "the guest and the backend disagree"
        );
        addresses.insert(seen);
    }
    println!("addresses seen from inside: {addresses:?}");
    assert_eq!(addresses.len(), 16);
    backend.stop();
}

/// `GET /status/ID`. Panics if the backend does not know the execution.
fn status(backend: &Backend, id: &str) -> serde_json::Value {
    let url = format!("{}/status/{id}", backend.url());
    let answer = curl::get(&url).expect("the backend answers");
    assert_eq!(answer.status, 200, "unknown execution: {answer:?}");
    answer.body
}

#[test]
fn accepted_executions_finish_after_clouded_is_killed() {
    let mut backend = Backend::start("agent.transport = \"ip\"\nvm.max_concurrent = 4");
    let run = format!("{}/run", backend.url());
    let ids: Vec<String> = (0..8)
        .map(|number| {
            let body =
                serde_json::json!({"language": "bash", "code": format!("sleep 3; echo {number}")})
                    .to_string();
            let answer = curl::post(&run, &body);
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.body["id"].as_str().unwrap().to_owned()
        })
        .collect();
    // Kill `clouded` once a program runs or has ended, while other VMs boot and other executions are queued.
    host::wait_for("a program runs", || {
        ids.iter()
            .any(|id| {
                let status = status(&backend, id);
                assert_ne!(status["status"], "error", "{status}");
                matches!(status["status"].as_str(), Some("running" | "done"))
            })
            .then_some(())
    });

    backend.kill();
    // Workers end when their control socket closes.
    host::wait_for("no VM outlives its backend", || {
        host::descendants().is_empty().then_some(())
    });
    backend.restart();
    let stale: Vec<String> = host::links()
        .into_iter()
        .filter(|name| name != "lo" && name != BRIDGE)
        .collect();
    println!("links right after the restart, those of new VMs included: {stale:?}");

    for (number, id) in ids.iter().enumerate() {
        let status = host::wait_for("an accepted execution ends", || {
            let status = status(&backend, id);
            matches!(status["status"].as_str(), Some("done" | "error")).then_some(status)
        });
        assert_eq!(status["status"], "done", "{status}");
        assert_eq!(status["stdout"], format!("{number}\n"), "{status}");
    }
    backend.stop();
}

#[test]
fn an_interrupted_client_ends_its_vm() {
    // Without a pool the execution's VM is the only one.
    let backend = Backend::start("pool.enabled = false");
    let client = cloude::start_holding(&backend);
    assert_eq!(host_vms(), 1);
    cloude::interrupt(client);
    host::wait_for("the VM ends", || (host_vms() == 0).then_some(()));
    backend.stop();
}

/// Number of running workers. Only reads /proc: `host::descendants` would reap the test's client.
fn host_vms() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let parent = std::process::id().to_string();
    processes
        .filter(|entry| {
            let read =
                |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let parent_of = |stat: &str| {
                stat.rsplit(')')
                    .next()
                    .and_then(|rest| rest.split_whitespace().nth(1).map(str::to_owned))
            };
            let Some(clouded) = parent_of(&read("stat")) else {
                return false;
            };
            let above =
                std::fs::read_to_string(format!("/proc/{clouded}/stat")).unwrap_or_default();
            read("comm").starts_with("cloude-vmm") && parent_of(&above) == Some(parent.clone())
        })
        .count()
}
