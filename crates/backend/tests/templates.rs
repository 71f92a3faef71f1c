//! Template builds: when they start, their permits, and which failures count. Fake workers play the VMs. Needs
//! /dev/kvm.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

#[path = "../../engine/tests/fake_worker/mod.rs"]
mod fake_worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloude_backend::config::Config;
use cloude_backend::jobs::{Client, Parts, Service};
use cloude_backend::keys::Keys;
use cloude_backend::scheduler::{Capacity, Scheduler, VmPermit};
use cloude_backend::store::{Retention, Store};
use cloude_backend::tenant::Tenant;
use cloude_engine::images::{Images, ReadyImage};
use cloude_engine::{Demand, Engine, EngineConfig, Launcher as _, MachineSpec, TemplateError};
use cloude_protocol::api::{ExecutionRequest, StartChoice, TemplateInfo, TemplateState};
use cloude_protocol::language::Language;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

/// The memory of the language's default machine.
const DEFAULT_MIB: u64 = 256;

/// A scheduler for `vms` VMs.
fn scheduler(vms: usize) -> Scheduler {
    Scheduler::new(Capacity {
        vms,
        vcpus: usize::MAX,
        memory_mib: 64 << 10,
        queue: 16,
        queue_bytes: 1 << 20,
    })
}

fn store(folder: &Path) -> Store {
    let retention = Retention {
        age_ms: i64::MAX,
        jobs: 1,
        bytes: 1 << 30,
    };
    Store::open(folder, retention).unwrap()
}

struct World {
    folder: tempfile::TempDir,
    config: EngineConfig,
    scheduler: Scheduler,
    engine: Arc<Engine>,
}

impl World {
    async fn new(scheduler: Scheduler, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = fake_worker::config(folder.path());
        (config.pool.floor, config.pool.ceiling) = (0, 0);
        change(&mut config);
        World {
            engine: fake_worker::engine_with(&config, Arc::new(scheduler.clone())).await,
            config,
            folder,
            scheduler,
        }
    }

    fn spec(&self, memory_mib: u64, start: Option<StartChoice>) -> MachineSpec {
        MachineSpec {
            id: "01234567-test".into(),
            image: self.folder.path().join("image.cpio"),
            vcpus: 1,
            memory_mib,
            network: false,
            language: fake_worker::language(),
            template_owner: None,
            start,
        }
    }

    /// Launches and stops a VM: a fork, or a booted VM if there is no template.
    async fn execute(&self, memory_mib: u64, start: Option<StartChoice>) {
        let spec = self.spec(memory_mib, start);
        let launched = self.engine.launch(spec, CancellationToken::new()).await;
        let started = launched.unwrap_or_else(|failure| panic!("{failure}"));
        started.machine.stop().await;
    }

    async fn build(&self, memory_mib: u64) -> Result<TemplateInfo, TemplateError> {
        let spec = self.spec(memory_mib, None);
        Ok(self.engine.build_template(spec).await?.0)
    }

    /// Builds a template in the background.
    fn begin_build(
        &self,
        memory_mib: u64,
    ) -> tokio::task::JoinHandle<Result<(TemplateInfo, bool), TemplateError>> {
        let (engine, spec) = (Arc::clone(&self.engine), self.spec(memory_mib, None));
        tokio::spawn(async move { engine.build_template(spec).await })
    }

    /// Memory sizes of the ready templates.
    async fn ready(&self) -> Vec<u64> {
        let templates = self.engine.templates().await;
        let ready = templates
            .iter()
            .filter(|info| info.state == TemplateState::Ready);
        let mut sizes: Vec<u64> = ready.map(|info| info.memory_mib).collect();
        sizes.sort_unstable();
        sizes
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn boots(&self) -> usize {
        let path = self.folder.path().join("builds");
        std::fs::read_to_string(path).unwrap().lines().count()
    }

    async fn permit(&self) -> VmPermit {
        let demand = Demand {
            memory_mib: 1,
            vcpus: 1,
        };
        self.scheduler
            .enter(&Tenant::local(), 0)
            .unwrap()
            .admitted(demand)
            .await
    }

    async fn until_queued(&self, count: usize) {
        until(|| self.scheduler.load().waiting == count).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to that");
}

#[tokio::test]
async fn a_single_request_for_a_machine_builds_no_template() {
    let world = World::new(scheduler(16), |_| {}).await;
    world.execute(DEFAULT_MIB, Some(StartChoice::Fork)).await;
    for memory_mib in 1000..1020 {
        world.execute(memory_mib, None).await;
    }
    let counts = world.engine.pool_counts();
    assert_eq!((counts.built, counts.failed_builds), (1, 0));
    assert_eq!(world.ready().await, [DEFAULT_MIB]);
    world.engine.shut_down().await;
}

#[tokio::test]
async fn the_third_request_for_a_machine_builds_its_template() {
    let world = World::new(scheduler(16), |_| {}).await;
    let mut sizes = Vec::new();
    for _ in 0..3 {
        assert_eq!(world.engine.pool_counts().built, 0);
        world.execute(1024, None).await;
    }
    for _ in 0..3000 {
        sizes = world.ready().await;
        if !sizes.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sizes, [1024]);
    world.engine.shut_down().await;
}

#[tokio::test]
async fn a_build_waits_for_a_permit_like_any_vm() {
    let world = World::new(scheduler(1), |_| {}).await;
    let running = world.permit().await;
    let build = world.begin_build(DEFAULT_MIB);
    world.until_queued(1).await;
    assert_eq!(world.boots(), 0);
    drop(running);
    assert!(build.await.unwrap().unwrap().1);
    assert_eq!(world.boots(), 1);
    world.engine.shut_down().await;
    assert_eq!(world.scheduler.load().running, 0);
}

#[tokio::test]
async fn a_required_fork_lends_its_permit_to_its_build() {
    let world = World::new(scheduler(1), |_| {}).await;
    let _own = world.permit().await;
    let build = world.begin_build(DEFAULT_MIB);
    world.until_queued(1).await;
    // It holds the only permit and waits for a build that needs one.
    world.execute(DEFAULT_MIB, Some(StartChoice::Fork)).await;
    assert!(build.await.unwrap().is_ok());
    world.engine.shut_down().await;
}

#[tokio::test]
async fn a_full_queue_refuses_a_build_without_a_trace() {
    let full = Scheduler::new(Capacity {
        queue: 0,
        ..scheduler(1).capacity()
    });
    let world = World::new(full, |_| {}).await;
    let error = world.build(DEFAULT_MIB).await.unwrap_err();
    assert!(matches!(error, TemplateError::QueueFull(_)), "{error}");
    assert!(world.engine.templates().await.is_empty());
    world.engine.shut_down().await;
}

#[tokio::test]
async fn pool_templates_limits_the_builds_at_once() {
    let world = World::new(scheduler(16), |config| {
        config.pool.templates = 1;
    })
    .await;
    world.file("holds", "");
    let first = world.begin_build(DEFAULT_MIB);
    until(|| world.boots() == 1).await;
    let error = world.build(1024).await.unwrap_err();
    assert!(matches!(error, TemplateError::TooManyBuilds), "{error}");
    std::fs::remove_file(world.folder.path().join("holds")).unwrap();
    first.await.unwrap().unwrap();
    world.engine.shut_down().await;
}

/// The id of the default machine's template after a change of the world.
async fn id_after(change: impl FnOnce(&mut World)) -> String {
    let mut world = World::new(scheduler(16), |_| {}).await;
    change(&mut world);
    // Another run directory, because the first engine still locks its own.
    world.config.run_dir = world.folder.path().join("second");
    world.engine = fake_worker::engine(&world.config).await;
    let info = world.build(DEFAULT_MIB).await.unwrap();
    world.engine.shut_down().await;
    info.id
}

#[tokio::test]
async fn every_boot_input_changes_the_template_id() {
    let changes: [fn(&mut World); 6] = [
        |_| {},
        |world| world.config.vm.kernel_args = "mitigations=auto,nosmt".into(),
        |world| world.config.vm.log_guest_console = true,
        |world| world.file("agent-binary", "another agent"),
        |world| world.file("image.cpio", "another image"),
        |world| world.file("vmlinux", "another kernel"),
    ];
    let mut ids = Vec::new();
    for change in changes {
        ids.push(id_after(change).await);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), changes.len());
}

#[tokio::test]
async fn two_binaries_of_one_version_have_separate_templates() {
    let rebuilt = |world: &mut World| {
        let worker = std::fs::read_to_string(&world.config.vm.worker).unwrap();
        std::fs::write(&world.config.vm.worker, worker + "\n").unwrap();
    };
    let (one, same) = (id_after(|_| {}).await, id_after(|_| {}).await);
    assert_eq!(one, same);
    assert_ne!(one, id_after(rebuilt).await);
}

struct OneImage(PathBuf);

impl OneImage {
    fn image(&self) -> ReadyImage {
        ReadyImage {
            path: self.0.clone(),
            version: None,
            digest: "sha256:1".into(),
            checked_at: 0,
        }
    }
}

impl Images for OneImage {
    fn ready(&self, _: &Language) -> Option<ReadyImage> {
        Some(self.image())
    }

    fn ensure<'a>(
        &'a self,
        _: &'a Arc<Language>,
        _: u64,
    ) -> BoxFuture<'a, Result<ReadyImage, String>> {
        Box::pin(async { Ok(self.image()) })
    }
}

#[tokio::test]
async fn a_refused_request_does_not_count_against_a_template() {
    let world = World::new(scheduler(16), |_| {}).await;
    world.file("agent", "works");
    let before = world.build(DEFAULT_MIB).await.unwrap();
    world.file("agent", "refuses");
    let folder = world.folder.path();
    std::fs::create_dir(folder.join("jobs")).unwrap();
    let store = store(&folder.join("jobs"));
    let service = Service::new(Parts {
        config: Config::default(),
        keys: Keys::load(&store).await.unwrap(),
        languages: world.engine.languages().clone(),
        images: Arc::new(OneImage(folder.join("image.cpio"))),
        launcher: Arc::clone(&world.engine) as _,
        scheduler: world.scheduler.clone(),
        store,
    });
    for _ in 0..3 {
        let request = ExecutionRequest {
            language: "l".into(),
            code: "x".into(),
            ..ExecutionRequest::default()
        };
        let job = service
            .submit(Tenant::local(), request, Client::Waits)
            .await
            .unwrap();
        let execution = job.finished().await;
        let error = execution.error.clone().unwrap_or_default();
        assert!(error.contains("refused the request (400)"), "{error}");
    }
    let after = world.build(DEFAULT_MIB).await.unwrap();
    assert_eq!((after.id, after.created_ms), (before.id, before.created_ms));
    let counts = world.engine.pool_counts();
    assert_eq!((counts.failed_forks, counts.given_up), (0, 0));
    world.engine.shut_down().await;
}
