//! The jail of a worker, from outside: its user and its cgroup. Needs root and cgroups of either version.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod fake_worker;

use std::path::{Path, PathBuf};

use cloude_engine::config::{Wall, Walls};
use cloude_engine::{Engine, EngineConfig, Launcher};
use fake_worker::{config, engine};
use sha2::{Digest, Sha256};

/// Walls that this test's worker, a script, can have: it does not lock itself up.
fn walls(config: &mut EngineConfig) {
    config.isolation.require = [Wall::Namespaces, Wall::Uid, Wall::Cgroup]
        .into_iter()
        .collect();
}

/// The processes that run `worker`.
fn workers(worker: &Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let runs = |proc: &PathBuf| {
        let text = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let worker = worker.as_os_str().as_encoded_bytes();
        text.windows(worker.len()).any(|window| window == worker)
    };
    processes.map(|entry| entry.path()).filter(runs).collect()
}

/// The directories of a process's cgroups that the engine made.
fn cgroups(proc: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(proc.join("cgroup")).unwrap();
    let own = text.lines().filter(|line| line.contains("/cloude-"));
    own.map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap());
        let mount = Path::new("/sys/fs/cgroup").join(controllers);
        mount.join(path.trim_start_matches('/'))
    })
    .collect()
}

/// The value of the file that one of the cgroups has.
fn value(cgroups: &[PathBuf], names: [&str; 2]) -> String {
    let files = cgroups
        .iter()
        .flat_map(|cgroup| names.map(|name| cgroup.join(name)));
    let text = files
        .into_iter()
        .find_map(|file| std::fs::read_to_string(file).ok());
    text.unwrap_or_else(|| panic!("{cgroups:?} have neither of {names:?}"))
        .trim()
        .to_owned()
}

/// An engine with paused forks of the language's template.
async fn with_forks(config: &EngineConfig) -> std::sync::Arc<Engine> {
    let engine = engine(config).await;
    let language = fake_worker::language();
    let spec = cloude_engine::MachineSpec {
        id: "test".into(),
        image: config.images.dir.join("image.cpio"),
        language,
        vcpus: 1,
        memory_mib: 256,
        network: false,
        template_owner: None,
        start: None,
    };
    engine.build_template(spec).await.unwrap();
    engine
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_has_a_cgroup_with_limits_and_a_user_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.images.dir = dir.path().to_owned();
    walls(&mut config);
    let worker = config.vm.worker.clone();
    let engine = with_forks(&config).await;
    until("no forks", || workers(&worker).len() >= 2).await;
    let forks = workers(&worker);

    let own = cgroups(&forks[0]);
    let memory = value(&own, ["memory.max", "memory.limit_in_bytes"]);
    assert_eq!(memory, ((256 + 8 + 64) << 20).to_string());
    assert_eq!(value(&own, ["pids.max", "pids.max"]), "9");
    let cpu = value(&own, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(cpu.starts_with("200000"), "{cpu}");
    assert_ne!(own, cgroups(&forks[1]));
    let user = |proc: &PathBuf| {
        let map = std::fs::read_to_string(proc.join("uid_map")).unwrap();
        map.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let first = config.isolation.first_uid;
    assert!((first..first + 65536).contains(&user(&forks[0])));
    assert_ne!(user(&forks[0]), user(&forks[1]));

    engine.shut_down().await;
    drop(engine);
    let parent = own[0].parent().unwrap().to_owned();
    until("cgroups are left", || !own[0].exists() && !parent.exists()).await;
    assert_eq!(workers(&worker), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn cgroups_left_by_a_killed_engine_are_removed_with_processes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.pool.enabled = false;
    walls(&mut config);
    let first = engine(&config).await;
    // A process that a killed engine would leave in its cgroup.
    let parent = parent(&config.run_dir);
    let left = parent.join("vm-left");
    std::fs::create_dir(&left).unwrap();
    let mut process = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    std::fs::write(left.join("cgroup.procs"), process.id().to_string()).unwrap();
    first.shut_down().await;
    drop(first);
    assert!(left.exists());

    let second = engine(&config).await;

    assert!(!left.exists());
    let status = tokio::task::spawn_blocking(move || process.wait())
        .await
        .unwrap();
    assert!(!status.unwrap().success());
    second.shut_down().await;
}

/// The engine's cgroup, or that of its memory controller: below that of this process, or at the top.
fn parent(run_dir: &Path) -> PathBuf {
    let digest = Sha256::digest(run_dir.as_os_str().as_encoded_bytes());
    let name = format!("cloude-{}", const_hex::encode(&digest[..6]));
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let mount = Path::new("/sys/fs/cgroup").join(fields.next()?);
        Some(mount.join(fields.next()?.trim_start_matches('/')))
    });
    let mut places = own.chain([PathBuf::from("/sys/fs/cgroup")]);
    let found = places.find_map(|place| Some(place.join(&name)).filter(|parent| parent.exists()));
    found.expect("the engine has a cgroup")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_reports_the_walls_of_its_workers() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.pool.enabled = false;
    walls(&mut config);
    config.isolation.skip = Walls::NONE.with(Wall::Seccomp);
    let engine = engine(&config).await;
    let states = engine.walls();
    assert_eq!(states.len(), Wall::ALL.len());
    for state in states {
        let skipped = state.wall == Wall::Seccomp;
        let expected = skipped.then(|| "`isolation.skip` has it".to_owned());
        assert_eq!(state.missing, expected, "{}", state.wall);
    }
    engine.shut_down().await;
}
