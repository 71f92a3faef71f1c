//! Many forks of one template, asked for over HTTP: no two of them share a name, an identity or a
//! random number, and each has the host's time. `CLOUDE_FORKS=1000` makes it so many a language.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cloude_e2e::backend::Backend;
use cloude_e2e::curl;
use serde_json::{Value, json};

/// Forks of each language where `CLOUDE_FORKS` does not say.
const FORKS: usize = 24;
/// Forks that are asked for at once.
const AT_ONCE: usize = 2;
/// How far the guest's wall clock may be outside of the time that its request took, in seconds.
const CLOCK_TOLERANCE_S: f64 = 0.05;

fn wanted() -> usize {
    std::env::var("CLOUDE_FORKS").map_or(FORKS, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_FORKS is {text:?}: give a number"))
    })
}

/// What a fork printed, and the host's time before it was asked for and after it had answered.
struct Seen {
    printed: Value,
    before: f64,
    after: f64,
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Executes a program in a fork, by the interpreter that waited in it; it prints one JSON document.
fn in_fork(backend: &Backend, language: &str, code: &str, vcpus: u8) -> Seen {
    let request = json!({
        "language": language,
        "code": code,
        "start": "fork",
        "limits": { "wall_time_ms": 600_000, "vcpus": vcpus },
    });
    let before = now();
    let answer = curl::post(
        &format!("{}/v1/executions", backend.url()),
        &request.to_string(),
    );
    let after = now();
    let body = answer.body;
    assert_eq!(answer.status, 200, "{body}");
    assert!(
        matches!(body["start"].as_str(), Some("fork" | "pool")),
        "{body}"
    );
    assert_eq!(
        (&body["cause"], &body["exit_code"]),
        (&json!("exit"), &json!(0)),
        "{body}"
    );
    assert_eq!(
        body["run"]["warm"], true,
        "the interpreter that waited took it: {body}"
    );
    let stdout = body["stdout"].as_str().unwrap();
    Seen {
        printed: serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}")),
        before,
        after,
    }
}

fn in_forks(backend: &Backend, language: &str, code: &str, count: usize) -> Vec<Seen> {
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Threads of this one are in its network namespace, as the backend is.
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let fork = in_fork(backend, language, code, 1);
                    seen.lock().unwrap().push(fork);
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

/// Every value under every name was printed by one fork alone. Gives how many names there were.
fn assert_all_distinct(language: &str, forks: &[Seen]) -> usize {
    let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for fork in forks {
        for (name, value) in fork.printed["values"].as_object().unwrap() {
            values
                .entry(name)
                .or_default()
                .insert(value.as_str().unwrap());
        }
    }
    for (name, distinct) in &values {
        println!(
            "{language}: {} forks, {} distinct {name}",
            forks.len(),
            distinct.len()
        );
    }
    for (name, distinct) in &values {
        assert_eq!(
            distinct.len(),
            forks.len(),
            "{language}: forks share a {name}"
        );
    }
    values.len()
}

fn assert_the_hosts_time(language: &str, forks: &[Seen]) {
    for fork in forks {
        let time = fork.printed["time"].as_f64().unwrap();
        let (before, after) = (fork.before, fork.after);
        assert!(
            (before - CLOCK_TOLERANCE_S..=after + CLOCK_TOLERANCE_S).contains(&time),
            "{language}: the guest's clock said {time}, the host's {before} before and {after} after"
        );
    }
}

const PYTHON: &str = r#"
import json, os, random, secrets, socket, tempfile, time, uuid


def read(path):
    with open(path) as file:
        return file.read().strip()


with open("/dev/urandom", "rb") as device:
    urandom = device.read(16).hex()
values = {
    "getrandom": os.getrandom(16).hex(),
    "/dev/urandom": urandom,
    "random": repr(random.random()),
    "new generator": repr(random.Random().random()),
    "uuid4": str(uuid.uuid4()),
    "secret": secrets.token_hex(16),
    "temporary name": tempfile.mktemp(),
    "boot id": read("/proc/sys/kernel/random/boot_id"),
    "machine id": read("/etc/machine-id"),
    "host name": socket.gethostname(),
}
print(json.dumps({"values": values, "time": time.time()}))
"#;

const NODE: &str = r#"
const crypto = require("crypto"), fs = require("fs"), os = require("os");
const values = {
  "randomBytes": crypto.randomBytes(16).toString("hex"),
  "randomUUID": crypto.randomUUID(),
  "getRandomValues": Buffer.from(crypto.webcrypto.getRandomValues(new Uint8Array(16))).toString("hex"),
  "private key": crypto.generateKeyPairSync("x25519").privateKey.export({ format: "jwk" }).d,
  "Math.random": String(Math.random()),
  "temporary name": fs.mkdtempSync("/tmp/some-"),
  "boot id": fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
  "machine id": fs.readFileSync("/etc/machine-id", "utf8").trim(),
  "host name": os.hostname(),
};
console.log(JSON.stringify({ values, time: Date.now() / 1000 }));
"#;

fn forks_share_nothing(language: &str, code: &str, names: usize) {
    let backend = Backend::start("");
    let forks = in_forks(&backend, language, code, wanted());
    assert_eq!(assert_all_distinct(language, &forks), names);
    assert_the_hosts_time(language, &forks);
    backend.stop();
}

#[test]
fn python_forks_share_no_random_value_or_name_and_have_the_hosts_time() {
    forks_share_nothing("python", PYTHON, 10);
}

#[test]
fn node_forks_share_no_random_value_or_name_and_have_the_hosts_time() {
    forks_share_nothing("node", NODE, 9);
}

/// Reads every clock in turns on every processor. The interpreter was started shortly before its
/// template was saved: a clock that says less than its start has gone back over the fork.
const CLOCKS: &str = r#"
import json, os, time

names = ["MONOTONIC", "MONOTONIC_RAW", "BOOTTIME", "REALTIME", "PROCESS_CPUTIME_ID"]
clocks = {name: getattr(time, "CLOCK_" + name) for name in names}
first = time.clock_gettime(time.CLOCK_BOOTTIME)
last = {name: time.clock_gettime_ns(clock) for name, clock in clocks.items()}
cpus = sorted(os.sched_getaffinity(0))
back = []
for turn in range(100):
    os.sched_setaffinity(0, {cpus[turn % len(cpus)]})
    for _ in range(20):
        for name, clock in clocks.items():
            now = time.clock_gettime_ns(clock)
            if now < last[name]:
                back.append([name, last[name], now])
            last[name] = now
# proc(5): the 22nd field of stat is the start, in ticks since the boot.
with open("/proc/self/stat") as file:
    start = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
print(json.dumps({"back": back, "cpus": len(cpus), "start": start, "first": first}))
"#;

#[test]
fn no_clock_of_a_fork_ever_goes_back() {
    let backend = Backend::start("");
    for vcpus in [1, 2] {
        let mut starts = HashSet::new();
        for _ in 0..5 {
            let clocks = in_fork(&backend, "python", CLOCKS, vcpus).printed;
            println!("{vcpus} vCPUs: {clocks}");
            assert_eq!(clocks["cpus"], vcpus, "{clocks}");
            assert_eq!(clocks["back"], json!([]), "{clocks}");
            let (start, first) = (&clocks["start"], clocks["first"].as_f64().unwrap());
            assert!(first >= start.as_f64().unwrap(), "{clocks}");
            starts.insert(start.to_string());
        }
        assert_eq!(starts.len(), 1, "all are forks of one template: {starts:?}");
    }
    backend.stop();
}
