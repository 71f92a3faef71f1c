//! Many forks of one template, requested over HTTP: no two share a name, an identity or a random value, and each
//! has the host's time. `CLOUDE_FORKS` sets the number of forks for each language.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cloude_e2e::backend::Backend;
use cloude_e2e::curl;
use serde_json::{Value, json};

/// Default number of forks of each language.
const FORKS: usize = 24;
/// Concurrent requests.
const AT_ONCE: usize = 2;
/// Tolerance in seconds by which the guest's wall clock may lie outside the duration of its request.
const CLOCK_TOLERANCE_S: f64 = 0.05;

fn wanted() -> usize {
    std::env::var("CLOUDE_FORKS").map_or(FORKS, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("CLOUDE_FORKS is {text:?}: set it to a number"))
    })
}

/// The output of a fork, and the host's time in seconds before the request and after the response.
struct Seen {
    printed: Value,
    before: f64,
    after: f64,
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Executes a program that prints a JSON document, in the preloaded interpreter of a fork.
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
        "run.warm is false, so that the preloaded interpreter was not used: {body}"
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
    // New threads inherit this thread's network namespace, which is also the backend's.
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

/// Asserts that the forks printed distinct values under every name. Returns the number of names.
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
            "{language}: two forks have the same {name}"
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
            "{language}: the guest's time is {time}, outside the request's {before} to {after}"
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
fn python_forks_have_distinct_values_and_the_hosts_time() {
    forks_share_nothing("python", PYTHON, 10);
}

#[test]
fn node_forks_have_distinct_values_and_the_hosts_time() {
    forks_share_nothing("node", NODE, 9);
}

/// Reads every clock on every CPU alternately. The interpreter was started before its template was saved, so a
/// CLOCK_BOOTTIME below the process's start time went backwards over the fork.
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
fn clocks_of_a_fork_never_go_backwards() {
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
        assert_eq!(
            starts.len(),
            1,
            "the forks have more than one template: {starts:?}"
        );
    }
    backend.stop();
}
