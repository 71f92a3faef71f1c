use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use crate::machine::MachineShape;
use crate::snapshot::Snapshot;
use crate::template::folder::tests::snapshot;

fn key(kernel: &str) -> TemplateKey {
    TemplateKey {
        kernel: kernel.into(),
        image: "image".into(),
        segment: "agent".into(),
        boot: "boot".into(),
        language: "language".into(),
        worker: "worker".into(),
        version: "1".into(),
        owner: String::new(),
        shape: MachineShape {
            vcpus: 1,
            memory_mib: 1,
            network: false,
        },
    }
}

fn store(dir: &Path) -> DiskStore {
    DiskStore::new(&config::Pool {
        disk: dir.to_str().unwrap().into(),
        ..config::Pool::default()
    })
}

/// As if it had just been built for `key`.
fn built(key: &TemplateKey) -> Arc<Template> {
    let origin = key.origin();
    Arc::new(Template {
        snapshot: Snapshot {
            origin: origin.clone(),
            ..snapshot(&origin)
        },
        token: "secret".into(),
        shape: key.shape,
        loaded: false,
        working_set: std::sync::OnceLock::new(),
    })
}

#[tokio::test]
async fn a_stored_template_is_loaded_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let key = key("kernel");
    store(dir.path()).store(key.id(), built(&key)).await;

    let loaded = store(dir.path()).load(&key).await.unwrap();

    assert!(loaded.loaded);
    assert_eq!(loaded.token, "secret");
    assert_eq!(loaded.snapshot.origin, key.origin());
}

#[tokio::test]
async fn another_kernel_loads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key_one = key("kernel");
    store(dir.path()).store(key_one.id(), built(&key_one)).await;
    assert!(store(dir.path()).load(&key("other")).await.is_none());
}

#[tokio::test]
async fn a_template_whose_forks_failed_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let key = key("kernel");
    let disk = store(dir.path());
    disk.store(key.id(), built(&key)).await;
    disk.distrust(&key.id(), "the worker refused its state");

    assert!(disk.load(&key).await.is_none());
    let aside = dir.path().join("templates").join(key.id());
    assert!(aside.with_extension("damaged").is_dir());

    disk.store(key.id(), built(&key)).await;
    assert!(disk.load(&key).await.is_some());
}

#[tokio::test]
async fn a_damaged_template_is_not_loaded_and_can_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let key = key("kernel");
    let disk = store(dir.path());
    disk.store(key.id(), built(&key)).await;
    let memory = dir.path().join("templates").join(key.id()).join("memory");
    let memory = std::fs::File::options().write(true).open(memory).unwrap();
    memory.write_all_at(&[1], 77).unwrap();

    assert!(disk.load(&key).await.is_none());
    disk.store(key.id(), built(&key)).await;
    assert!(disk.load(&key).await.is_some());
}

#[tokio::test]
async fn nothing_is_stored_if_the_disk_is_off() {
    let disk = DiskStore::new(&config::Pool {
        disk: "off".into(),
        ..config::Pool::default()
    });
    let key = key("kernel");
    disk.store(key.id(), built(&key)).await;
    assert!(disk.load(&key).await.is_none());
    assert!(!disk.remove(&key.id()).await.unwrap());
}
