//! Forks with a network: each fork has a separate address, MAC and route, as after a cold boot.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread::JoinHandle;

use cloude_e2e::backend::Backend;
use cloude_e2e::{cloude, host};
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, StartKind};

/// Default number of concurrent forks with four vCPUs; `CLOUDE_NETWORK_FORKS` overrides it.
const FORKS: usize = 6;
/// The server's subnet. Private addresses are denied unless `network.allow` has them.
const ALLOW: &str = "10.231.0.0/30";
/// The address of the host's end of the veth pair to the server.
const NEAR: &str = "10.231.0.1/30";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 2);
/// The TCP port that each program listens on.
const PORT: u16 = 7000;

/// Listens on [`PORT`], sends its IP and MAC address to the server, and tries to connect to the VM that the
/// response names. The server responds after all VMs have sent a request.
const PROGRAM: &str = r#"
import socket, sys, threading
server, port = sys.argv[1], int(sys.argv[2])
mac = open("/sys/class/net/eth0/address").read().strip()
listener = socket.create_server(("0.0.0.0", 7000))
def answer():
    while True:
        listener.accept()[0].sendall(b"here\n")
threading.Thread(target=answer, daemon=True).start()
with socket.create_connection((server, port), timeout=600) as fetch:
    ip = fetch.getsockname()[0]
    fetch.sendall(f"GET /{ip}/{mac} HTTP/1.0\r\n\r\n".encode())
    text = b""
    while piece := fetch.recv(4096):
        text += piece
other = text.decode().split("\r\n\r\n")[1].strip()
try:
    socket.create_connection((other, 7000), timeout=3)
    reached = "reached"
except OSError:
    reached = "unreachable"
hosts = "template" if "template" in open("/etc/hosts").read() + socket.gethostname() else "own"
routes = [line.split()[1:3] for line in open("/proc/net/route").read().splitlines()[1:]]
defaults = [gateway for to, gateway in routes if to == "00000000"]
print(ip, mac, other, reached, hosts, len(defaults), socket.gethostbyname(socket.gethostname()))
"#;

/// An HTTP server in a separate network namespace, one hop behind the host.
struct Server {
    thread: JoinHandle<()>,
    port: u16,
    /// IP and MAC address of each client, from its request.
    asked: mpsc::Receiver<(Ipv4Addr, String)>,
    /// A message makes the server send its responses.
    answer: mpsc::Sender<()>,
}

impl Server {
    /// Receives `count` requests, then responds to each with the address of the client before it.
    fn start(count: usize) -> Self {
        let (says_id, id) = mpsc::channel();
        let (moved, wait_for_move) = mpsc::channel::<()>();
        let (says_port, port) = mpsc::channel();
        let (says_asked, asked) = mpsc::channel();
        let (answer, wait_for_answer) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: takes no pointers; only the network namespace of this thread changes.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            // SAFETY: takes no arguments and cannot fail.
            says_id.send(unsafe { libc::gettid() }).unwrap();
            wait_for_move.recv().unwrap();
            host::run(
                "ip",
                &["address", "add", &format!("{SERVER}/30"), "dev", "far"],
            );
            host::run("ip", &["link", "set", "far", "up"]);
            let listener = TcpListener::bind((SERVER, 0)).unwrap();
            says_port
                .send(listener.local_addr().unwrap().port())
                .unwrap();
            let mut waiting: Vec<(Ipv4Addr, TcpStream)> = Vec::new();
            while waiting.len() < count {
                let stream = listener.accept().unwrap().0;
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let mut parts = line.split([' ', '/']).filter(|part| !part.is_empty());
                let (ip, mac) = (parts.nth(1).unwrap(), parts.next().unwrap());
                let ip: Ipv4Addr = ip.parse().unwrap();
                says_asked.send((ip, mac.to_owned())).unwrap();
                waiting.push((ip, stream));
            }
            // The sender is gone if the test has panicked.
            if wait_for_answer.recv().is_err() {
                return;
            }
            let mut other = waiting.last().unwrap().0;
            for (ip, mut stream) in waiting {
                let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{other}\n");
                other = ip;
            }
        });
        let id = id.recv().unwrap().to_string();
        host::run(
            "ip",
            &["link", "add", "near", "type", "veth", "peer", "name", "far"],
        );
        host::run("ip", &["address", "add", NEAR, "dev", "near"]);
        host::run("ip", &["link", "set", "near", "up"]);
        host::run("ip", &["link", "set", "far", "netns", &id]);
        moved.send(()).unwrap();
        let port = port.recv().unwrap();
        Server {
            thread,
            port,
            asked,
            answer,
        }
    }

    /// Waits for the server's thread. The kernel removes the veth pair with its namespace.
    fn stop(self) {
        self.thread.join().unwrap();
    }
}

fn wanted() -> usize {
    std::env::var("CLOUDE_NETWORK_FORKS").map_or(FORKS, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_NETWORK_FORKS is {text:?}: set it to a number"))
    })
}

fn greets(ip: Ipv4Addr) -> bool {
    let address = SocketAddr::from((ip, PORT));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, host::patience()) else {
        return false;
    };
    stream.set_read_timeout(Some(host::patience())).unwrap();
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"here\n"
}

/// The words that the program printed.
fn words(execution: &Execution) -> Vec<String> {
    assert_eq!(
        (execution.cause, execution.exit_code),
        (Cause::Exit, Some(0)),
        "{execution:?}"
    );
    assert_ne!(execution.start, StartKind::Cold, "{execution:?}");
    let text = execution.stdout.to_text();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Runs [`PROGRAM`] in `count` concurrent forks of one template and compares their networks.
fn forks_have_separate_networks(count: usize, transport: &str, vcpus: usize) {
    let all_vcpus = count * vcpus;
    let vcpus = &vcpus.to_string();
    let backend = Backend::start(&format!(
        "agent.transport = \"{transport}\"\nnetwork.allow = [\"{ALLOW}\"]\nvm.max_concurrent = {count}\n\
         vm.max_vcpus_total = {all_vcpus}\nvm.memory_budget_mib = 16384\npool.ceiling = 2\nagent.grace_ms = 300000\n\
         limits.compile_time_ms = 120000"
    ));
    let server = Server::start(count);
    let port = server.port.to_string();
    let address = SERVER.to_string();
    let arguments = [
        "run",
        "--json",
        "-l",
        "python",
        "-c",
        PROGRAM,
        "--network",
        "--vcpus",
        vcpus,
        "--start",
        "fork",
        "--timeout",
        cloude::LONGEST,
        "--",
        address.as_str(),
        port.as_str(),
    ];
    let mut children: Vec<_> = (0..count)
        .map(|_| {
            cloude::command(&backend, &arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut asked = Vec::new();
    for number in 0..count {
        let what = format!("{number} of {count} asked the server: {asked:?}");
        let one = host::wait_for(&what, || {
            for child in &mut children {
                // No program ends before the server responds.
                let ended = child.try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "{what}, a client ended first: {}",
                    backend.log()
                );
            }
            server.asked.try_recv().ok()
        });
        asked.push(one);
    }
    // The control: the host can connect to every program, so that only a filter separates the VMs.
    for (ip, _) in &asked {
        assert!(greets(*ip), "{ip} does not listen");
    }
    server.answer.send(()).unwrap();

    let (mut addresses, mut hardware) = (BTreeSet::new(), BTreeSet::new());
    for child in children {
        let execution = cloude::execution(&child.wait_with_output().unwrap());
        let words = words(&execution);
        let [ip, mac, other, reached, hosts, defaults, own] = &words[..] else {
            panic!("{execution:?}");
        };
        println!("{:?}: {}", execution.start, words.join(" "));
        assert_eq!(execution.ip, ip.parse().ok(), "guest and backend disagree");
        assert_ne!(ip, other);
        assert_eq!(reached, "unreachable", "{ip} can connect to {other}");
        assert_eq!((hosts.as_str(), defaults.as_str()), ("own", "1"));
        assert_eq!(own, ip, "the host name resolves to another address");
        let [a, b, c, d] = execution.ip.unwrap().octets();
        assert_eq!(mac, &format!("02:c1:{a:02x}:{b:02x}:{c:02x}:{d:02x}"));
        addresses.insert(ip.clone());
        hardware.insert(mac.clone());
    }
    assert_eq!((addresses.len(), hardware.len()), (count, count));
    server.stop();
    backend.stop();
}

#[test]
fn concurrent_forks_with_four_vcpus_have_separate_networks() {
    forks_have_separate_networks(wanted(), "vsock", 4);
}

#[test]
fn forks_with_ip_transport_have_separate_networks() {
    forks_have_separate_networks(2, "ip", 1);
}
