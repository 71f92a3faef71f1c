//! Every path on which a fork ends releases its TAP, address and firewall rules. Fake workers play the VMs, in a
//! separate network namespace. Needs root, nft and /dev/kvm.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod fake_worker;
mod namespace;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloude_engine::config::{EngineConfig, Transport};
use cloude_engine::{Engine, Failure, Launched, Launcher as _, MachineSpec};
use cloude_protocol::api::{StartChoice, StartKind};
use namespace::{inside, output};
use tokio_util::sync::CancellationToken;

/// Addresses for VMs in [`RANGE`].
const ADDRESSES: usize = 5;
const RANGE: &str = "172.31.0.0/29";

/// The number of TAPs, and of TAPs with a firewall rule.
fn held() -> (usize, usize) {
    let links = output("ip", &["-brief", "link"]);
    let taps = links.lines().filter(|line| line.starts_with("ct")).count();
    let leases = output(
        "nft",
        &["list", "set", "bridge", "cloude_cloude0", "leases"],
    );
    (taps, (leases.matches(" . ").count() / 2).saturating_sub(1))
}

/// Waits until `count` TAPs exist, each with its rule.
async fn until_held(count: usize) {
    for _ in 0..15_000 {
        if held() == (count, count) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("held: {:?}, not {count}", held());
}

/// Waits until `count` paused forks are in the pool.
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

    /// Makes all workers fail at `request`.
    fn fails_at(&self, request: &str) {
        std::fs::write(self.folder.path().join("fails"), request).unwrap();
    }

    async fn fork(&self) -> Result<Launched, Failure> {
        self.fork_of(64).await
    }

    /// A fork of the template with that guest memory.
    async fn fork_of(&self, memory_mib: u64) -> Result<Launched, Failure> {
        let spec = MachineSpec {
            id: "01234567-test".into(),
            image: self.folder.path().join("image.cpio"),
            vcpus: 1,
            memory_mib,
            network: true,
            language: fake_worker::language(),
            template_owner: None,
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
async fn a_stopped_fork_releases_its_addresses() {
    if !inside("a_stopped_fork_releases_its_addresses") {
        return;
    }
    for transport in [Transport::Vsock, Transport::Ip] {
        let world = World::new(|config| config.agent.transport = transport).await;
        let (one, two) = (world.forked().await, world.forked().await);
        // The VM of the template is gone.
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
async fn failed_forks_and_templates_release_everything() {
    if !inside("failed_forks_and_templates_release_everything") {
        return;
    }
    let world = World::new(|_| {}).await;
    world.forked().await.machine.stop().await;
    for request in ["blank", "restore", "resume"] {
        // More often than there are addresses. Every third failure removes the template.
        for _ in 0..=ADDRESSES {
            world.fails_at(request);
            let failure = match world.fork().await {
                Err(failure) => failure,
                // `launch` does not wait for the answer to `resume`: the machine reports its failure.
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
async fn a_paused_fork_that_was_killed_releases_everything() {
    if !inside("a_paused_fork_that_was_killed_releases_everything") {
        return;
    }
    let world = World::new(|config| (config.pool.floor, config.pool.ceiling) = (1, 1)).await;
    let running = world.forked().await;
    until_waiting(&world, 1).await;
    let ip = running.ip.unwrap();
    running.machine.stop().await;
    until_held(1).await;
    for pid in children(world.folder.path()) {
        // SAFETY: takes no pointers. The worker was not waited for, so its PID is not reused.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        // SIGKILL takes effect later.
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let next = world.forked().await;
    assert_ne!(next.ip, Some(ip), "an address is not reused at once");
    // One running and one paused fork. The address of the killed one is free.
    until_held(2).await;
    next.machine.stop().await;
    until_held(1).await;
    world.engine.shut_down().await;
    assert!(!output("ip", &["-brief", "link"]).contains("ct"));
    assert_eq!(output("nft", &["list", "ruleset"]), "");
}

#[tokio::test]
async fn paused_forks_give_up_addresses_for_other_vms() {
    if !inside("paused_forks_give_up_addresses_for_other_vms") {
        return;
    }
    let world = World::new(|config| (config.pool.floor, config.pool.ceiling) = (8, 8)).await;
    let one = world.forked().await;
    // The pool holds all other addresses.
    until_held(ADDRESSES).await;
    // A template of another size: its build and its fork need an address each.
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

/// PIDs of the workers of this folder.
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
