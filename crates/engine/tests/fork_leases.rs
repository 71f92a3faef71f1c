//! What a fork holds of the network is given back on every path: in a network namespace of its own, with
//! workers that play a VM. Needs root, nft and /dev/kvm.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod fake_worker;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cloude_engine::config::{EngineConfig, Transport};
use cloude_engine::{Engine, Failure, Launched, Launcher as _, MachineSpec};
use cloude_protocol::api::{StartChoice, StartKind};
use tokio_util::sync::CancellationToken;

/// Set in the child, which is this test again inside `unshare --net`.
const INSIDE: &str = "CLOUDE_TEST_IN_NAMESPACE";
/// So many VMs have an address in the range below.
const ADDRESSES: usize = 5;
const RANGE: &str = "172.31.0.0/29";

/// Runs the named test in a fresh network namespace; true when this already is it.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare needs root");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What VMs hold: names of TAPs, and of TAPs that may send.
fn held() -> (usize, usize) {
    let links = output("ip", &["-brief", "link"]);
    let taps = links.lines().filter(|line| line.starts_with("ct")).count();
    let leases = output(
        "nft",
        &["list", "set", "bridge", "cloude_cloude0", "leases"],
    );
    (taps, (leases.matches(" . ").count() / 2).saturating_sub(1))
}

/// Waits until VMs hold so much.
async fn until_held(count: usize) {
    for _ in 0..15_000 {
        if held() == (count, count) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("held: {:?}, not {count}", held());
}

/// Waits until so many forks wait in the pool.
async fn until_waiting(world: &World, count: usize) {
    for _ in 0..15_000 {
        let templates = world.engine.templates().await;
        if templates
            .iter()
            .map(|template| template.waiting)
            .sum::<usize>()
            == count
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the pool never had {count} forks");
}

struct World {
    folder: tempfile::TempDir,
    engine: Arc<Engine>,
}

impl World {
    async fn new(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = fake_worker::config(folder.path());
        config.network.range = RANGE.into();
        (config.pool.floor, config.pool.ceiling) = (0, 0);
        change(&mut config);
        World {
            engine: fake_worker::engine(&config).await,
            folder,
        }
    }

    /// Makes workers fail at this request from now on.
    fn fails_at(&self, request: &str) {
        std::fs::write(self.folder.path().join("fails"), request).unwrap();
    }

    async fn fork(&self) -> Result<Launched, Failure> {
        self.fork_of(64).await
    }

    /// Of the template of that size.
    async fn fork_of(&self, memory_mib: u64) -> Result<Launched, Failure> {
        let spec = MachineSpec {
            id: "01234567-test".into(),
            image: self.folder.path().join("image.cpio"),
            vcpus: 1,
            memory_mib,
            network: true,
            language: fake_worker::language(),
            start: Some(StartChoice::Fork),
        };
        self.engine.launch(spec, CancellationToken::new()).await
    }

    async fn forked(&self) -> Launched {
        self.fork()
            .await
            .unwrap_or_else(|failure| panic!("{failure}"))
    }
}

#[tokio::test]
async fn a_fork_has_its_own_addresses_and_gives_them_back_when_it_is_stopped() {
    if !inside("a_fork_has_its_own_addresses_and_gives_them_back_when_it_is_stopped") {
        return;
    }
    for transport in [Transport::Vsock, Transport::Ip] {
        let world = World::new(|config| config.agent.transport = transport).await;
        let (one, two) = (world.forked().await, world.forked().await);
        // The template's own is gone.
        until_held(2).await;
        let identity = |launched: &Launched| launched.network.clone().unwrap();
        for launched in [&one, &two] {
            assert_eq!(launched.start, StartKind::Fork);
            assert_eq!(Some(identity(launched).config.address), launched.ip);
            let ip = launched.ip.unwrap().octets();
            assert_eq!(identity(launched).mac[2..], ip);
        }
        assert_ne!(one.ip, two.ip);
        one.machine.stop().await;
        assert_eq!(held(), (1, 1));
        two.machine.stop().await;
        assert_eq!(held(), (0, 0));
        world.engine.shut_down().await;
        assert_eq!(output("nft", &["list", "ruleset"]), "");
    }
}

#[tokio::test]
async fn forks_that_fail_and_templates_that_fail_hold_nothing() {
    if !inside("forks_that_fail_and_templates_that_fail_hold_nothing") {
        return;
    }
    let world = World::new(|_| {}).await;
    world.forked().await.machine.stop().await;
    for request in ["blank", "restore", "resume"] {
        // More often than there are addresses; every third time the template is built anew.
        for _ in 0..=ADDRESSES {
            world.fails_at(request);
            let failure = match world.fork().await {
                Err(failure) => failure,
                // Told to run, it is handed out at once: whoever has it hears that it does not.
                Ok(mut launched) => {
                    assert_eq!(request, "resume");
                    let failure = launched.machine.failed().await;
                    launched.machine.stop().await;
                    failure
                }
            };
            assert!(
                failure.message.contains("a failure on request"),
                "{request}: {failure}"
            );
            assert_eq!(held(), (0, 0), "{request}");
            world.fails_at("");
        }
    }
    world.engine.shut_down().await;

    for request in ["boot", "connect", "save"] {
        let world = World::new(|_| {}).await;
        world.fails_at(request);
        let failure = world.fork().await.err().unwrap();
        assert!(
            failure.message.contains("a failure on request"),
            "{request}: {failure}"
        );
        assert_eq!(held(), (0, 0), "{request}");
        world.engine.shut_down().await;
    }
}

#[tokio::test]
async fn a_fork_that_dies_while_it_waits_holds_nothing_once_it_is_found_dead() {
    if !inside("a_fork_that_dies_while_it_waits_holds_nothing_once_it_is_found_dead") {
        return;
    }
    let world = World::new(|config| (config.pool.floor, config.pool.ceiling) = (1, 1)).await;
    let running = world.forked().await;
    until_waiting(&world, 1).await;
    let ip = running.ip.unwrap();
    running.machine.stop().await;
    until_held(1).await;
    for pid in children(world.folder.path()) {
        // SAFETY: takes no pointers; the worker has not been waited for, so that its id is its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        // It takes a while to die.
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let next = world.forked().await;
    assert_ne!(next.ip, Some(ip), "not the last one's at once");
    // It, and the next that waits; the dead one's are back.
    until_held(2).await;
    next.machine.stop().await;
    until_held(1).await;
    world.engine.shut_down().await;
    assert!(!output("ip", &["-brief", "link"]).contains("ct"));
    assert_eq!(output("nft", &["list", "ruleset"]), "");
}

#[tokio::test]
async fn forks_that_wait_give_their_addresses_to_whoever_needs_one() {
    if !inside("forks_that_wait_give_their_addresses_to_whoever_needs_one") {
        return;
    }
    let world = World::new(|config| (config.pool.floor, config.pool.ceiling) = (8, 8)).await;
    let one = world.forked().await;
    // The pool has all the others, and wants more.
    until_held(ADDRESSES).await;
    // Another template, whose own VM and whose fork need one each.
    let other = world.fork_of(65).await;
    let other = other.unwrap_or_else(|failure| panic!("{failure}"));
    assert_ne!(one.ip, other.ip);
    one.machine.stop().await;
    other.machine.stop().await;
    world.engine.shut_down().await;
    assert_eq!(output("nft", &["list", "ruleset"]), "");
}

#[tokio::test]
async fn the_pool_is_filled_while_forks_run() {
    if !inside("the_pool_is_filled_while_forks_run") {
        return;
    }
    let world = World::new(|config| (config.pool.floor, config.pool.ceiling) = (2, 2)).await;
    let first = world.forked().await;
    until_waiting(&world, 2).await;
    let second = world.forked().await;
    assert_eq!(second.start, StartKind::Pool);
    until_held(4).await;
    first.machine.stop().await;
    second.machine.stop().await;
    world.engine.shut_down().await;
    assert_eq!(output("nft", &["list", "ruleset"]), "");
}

/// Processes that run the worker of this folder.
fn children(folder: &Path) -> Vec<i32> {
    let worker = folder.join("worker");
    let worker = worker.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            String::from_utf8_lossy(&command)
                .contains(worker)
                .then_some(pid)
        })
        .collect()
}
