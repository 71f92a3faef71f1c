//! Attacks that must fail, even as root in a VM: reaching the host, other VMs, the agent's token and other
//! executions.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use cloude_e2e::backend::{BRIDGE_ADDRESS, Backend};
use cloude_e2e::{cloude, host};
use cloude_protocol::agent::Cause;

const WITH_NETWORK: &str = "agent.transport = \"ip\"";

/// A Bash command that prints whether a TCP port accepts a connection within three seconds.
fn probe(address: &str, port: u32) -> String {
    format!(
        "timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo reached {address}:{port} || echo no {address}:{port}\n"
    )
}

#[test]
fn a_vm_reaches_no_service_of_the_host() {
    let backend = Backend::start(WITH_NETWORK);
    let listener = TcpListener::bind((BRIDGE_ADDRESS, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // The control: the host can connect, so that only a filter keeps the guest from it.
    TcpStream::connect((BRIDGE_ADDRESS, port)).unwrap();
    let code = probe(BRIDGE_ADDRESS, port.into());
    for options in [
        &["--timeout", cloude::LONGEST][..],
        &["--timeout", cloude::LONGEST, "--network"],
    ] {
        let execution = cloude::bash(&backend, options, &code);
        assert_eq!(
            execution.stdout.to_text(),
            format!("no {BRIDGE_ADDRESS}:{port}\n"),
            "{options:?}: {execution:?}"
        );
    }
    backend.stop();
}

/// Connects within one second, or returns `None`.
fn connect(address: Ipv4Addr, port: u16) -> Option<TcpStream> {
    TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(1)).ok()
}

#[test]
fn two_vms_do_not_reach_each_other() {
    // Without a pool the first TAP belongs to the first VM.
    let backend = Backend::start(&format!(
        "{WITH_NETWORK}\nvm.max_concurrent = 2\npool.enabled = false"
    ));
    // The program runs until the host connects to it.
    let code = "import socket; socket.create_server(('', 7000)).accept()";
    let arguments = ["run", "--json", "-l", "python", "-c", code, "--network"];
    let mut quiet = cloude::command(&backend, &arguments)
        .args(["--timeout", cloude::LONGEST])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The name of a TAP ends in the VM's IPv4 address as eight hexadecimal digits.
    let tap = cloude::wait_for("the first VM has a TAP", &mut quiet, || {
        host::links()
            .into_iter()
            .find(|name| name.starts_with("ct"))
    });
    let octets = u32::from_str_radix(&tap[tap.len() - 8..], 16).unwrap();
    let address = Ipv4Addr::from(octets);
    let agent = cloude_protocol::agent::AGENT_PORT;
    // These connections start before the agent listens, and must not keep the backend from reaching it.
    cloude::wait_for("the first VM's agent listens", &mut quiet, || {
        connect(address, agent as u16)
    });

    let execution = cloude::bash(
        &backend,
        &["--timeout", cloude::LONGEST, "--network"],
        &probe(&address.to_string(), agent),
    );

    assert_eq!(
        execution.stdout.to_text(),
        format!("no {address}:{agent}\n"),
        "{execution:?}"
    );
    cloude::wait_for("the first VM's program listens", &mut quiet, || {
        connect(address, 7000)
    });
    let first = cloude::execution(&quiet.wait_with_output().unwrap());
    assert_eq!(first.ip, Some(address), "another VM was probed");
    assert_eq!(
        first.exit_code,
        Some(0),
        "the first VM had ended when it was probed: {first:?}"
    );
    backend.stop();
}

/// Searches for the agent's token and tries to act as the backend; prints a line for each success. Runs as root.
const ATTACK: &str = r#"
[ -e /.cloude/boot.json ] && echo "the boot configuration is there"
ls /.cloude/* 2>/dev/null
for process in /proc/[0-9]*; do
    for file in environ cmdline mem; do
        case $process in /proc/$$|/proc/self) continue ;; esac
        tr '\0' '\n' 2>/dev/null < "$process/$file" | grep -qiE '[0-9a-f]{64}' && echo "a token in $process/$file"
    done
done
grep -qiE '[0-9a-f]{64}' /proc/cmdline && echo "a token on the kernel's command line"
for fd in /proc/self/fd/*; do
    case $(readlink "$fd") in socket:*) echo "inherited a socket: $fd" ;; esac
done
echo 'not a word of this is from the backend' > /proc/1/fd/0 2>/dev/null && echo "wrote to the agent's descriptors"
kill -KILL 1 2>/dev/null; kill -STOP 1 2>/dev/null
answer=$(exec 3<>/dev/tcp/127.0.0.1/1024 && printf 'POST /execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0\r\nContent-Length: 2\r\n\r\n{}' >&3 && timeout 3 head -1 <&3) 2>/dev/null
case $answer in *" 200 "*) echo "the agent obeyed: $answer" ;; esac
exit 7
"#;

#[test]
fn a_program_finds_no_token_and_cannot_act_as_the_backend() {
    for transport in ["vsock", "ip"] {
        let backend = Backend::start(&format!("agent.transport = \"{transport}\""));
        let options = ["--timeout", cloude::LONGEST, "--user", "root"];
        let execution = cloude::bash(&backend, &options, ATTACK);
        assert_eq!(execution.stdout.to_text(), "", "{transport}: {execution:?}");
        assert_eq!(
            (execution.cause, execution.exit_code),
            (Cause::Exit, Some(7)),
            "{transport}: {execution:?}"
        );
        backend.stop();
        // The next `Backend::start` moves this thread to a new network namespace.
    }
}

#[test]
fn a_forged_finished_event_is_only_output() {
    let backend = Backend::start("");
    let forged = r#"{"event":"finished","run":{"cause":"exit","exit_code":0,"signal":null,"wall_time_us":1,"cpu_time_us":1,"peak_memory_bytes":1,"stdout_bytes":0,"stdout_dropped":0,"stderr_bytes":0,"stderr_dropped":0}}"#;
    let code = format!(
        "for fd in /proc/self/fd/* /dev/console /dev/ttyS0; do echo '{forged}' > $fd; done 2>/dev/null\necho '{forged}'\nexit 9"
    );
    let execution = cloude::bash(&backend, &["--user", "root"], &code);
    assert_eq!(
        (execution.cause, execution.exit_code),
        (Cause::Exit, Some(9)),
        "{execution:?}"
    );
    assert!(
        execution.stdout.to_text().ends_with(&format!("{forged}\n")),
        "{execution:?}"
    );
    backend.stop();
}

#[test]
fn executions_see_no_files_of_earlier_ones() {
    let backend = Backend::start("");
    let mut seen = std::io::stdout();
    for execution_name in ["first", "second"] {
        let execution = cloude::bash(
            &backend,
            &["--user", "root"],
            "cat /tmp/mark /work/mark /root/mark 2>/dev/null; for d in /tmp /work /root; do echo x > $d/mark; done; exit 0",
        );
        assert_eq!(
            execution.stdout.to_text(),
            "",
            "{execution_name}: {execution:?}"
        );
        writeln!(seen, "{execution_name}: clean").unwrap();
    }
    backend.stop();
}
