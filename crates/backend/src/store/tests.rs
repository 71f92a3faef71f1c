use cloude_protocol::agent::Cause;
use cloude_protocol::api::{StartKind, Timings};

use super::*;

const KEEP: Retention = Retention {
    age_ms: i64::MAX / 4,
    jobs: 100,
};

fn accepted(id: &str) -> Accepted {
    let request = ExecutionRequest {
        language: "py".into(),
        code: "print(1)".into(),
        ..Default::default()
    };
    Accepted {
        id: id.into(),
        language: "python".into(),
        request,
        durable: true,
        attempts: 0,
    }
}

fn execution(id: &str) -> Arc<Execution> {
    Arc::new(Execution {
        id: id.into(),
        language: "python".into(),
        status: Status::Done,
        cause: Cause::Exit,
        exit_code: Some(3),
        signal: None,
        stdout: vec![0xff, b'a'].into(),
        stderr: "e".into(),
        compile: None,
        run: None,
        timings: Timings::default(),
        start: StartKind::Cold,
        ip: None,
        error: None,
    })
}

#[tokio::test]
async fn a_result_is_read_back_whole_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    store.started("a");
    store.finished(execution("a"));
    drop(store);

    let store = Store::open(dir.path(), KEEP).unwrap();
    let record = store.get("a").await.unwrap().unwrap();
    assert_eq!(record.status, Status::Done);
    assert_eq!(record.result.as_ref(), Some(&*execution("a")));
    assert!(store.unfinished().await.unwrap().is_empty());
    assert_eq!(store.get("b").await.unwrap(), None);
}

#[tokio::test]
async fn what_has_no_result_is_unfinished_with_its_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    store.accept(&accepted("b")).await.unwrap();
    store.started("b");
    store.flush().await.unwrap();
    let mut expected = accepted("b");
    expected.attempts = 1;
    assert_eq!(store.unfinished().await.unwrap(), [accepted("a"), expected]);
}

#[tokio::test]
async fn an_accepted_execution_is_in_the_file_before_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    // Another connection sees what a process after kill -9 would: the files as they are now.
    let other = schema::open(&dir.path().join("jobs.db")).unwrap();
    assert_eq!(unfinished(&other).unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_id_twice_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    assert!(store.accept(&accepted("a")).await.is_err());
}

#[tokio::test]
async fn only_the_newest_finished_executions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let few = Retention { jobs: 2, ..KEEP };
    let store = Store::open(dir.path(), few).unwrap();
    for id in ["a", "b", "c", "d"] {
        store.accept(&accepted(id)).await.unwrap();
    }
    for id in ["a", "b", "c"] {
        store.finished(execution(id));
    }
    drop(store);
    // The first batch of a process prunes.
    let store = Store::open(dir.path(), few).unwrap();
    store.flush().await.unwrap();
    drop(store);
    let store = Store::open(dir.path(), few).unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert!(store.get("b").await.unwrap().is_some());
    assert!(
        store.get("d").await.unwrap().is_some(),
        "not finished: never pruned"
    );
}

#[tokio::test]
async fn workers_and_the_last_address_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    let worker = WorkerRecord {
        pid: 7,
        start_time: 99,
    };
    store.worker_started(worker.clone(), Some(Ipv4Addr::new(10, 0, 0, 9)));
    store.worker_started(
        WorkerRecord {
            pid: 8,
            start_time: 1,
        },
        None,
    );
    store.worker_ended(8);
    store.flush().await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [worker]);
    assert_eq!(
        store.last_ip().await.unwrap(),
        Some(Ipv4Addr::new(10, 0, 0, 9))
    );
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let connection = schema::open(&dir.path().join("jobs.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(dir.path(), KEEP).unwrap_err().to_string();
    assert!(error.contains("99"), "{error}");
}

#[tokio::test]
async fn what_nobody_waited_for_is_there_for_whoever_asks_and_for_the_next_process() {
    let waiting = |id: &str| Accepted {
        durable: false,
        ..accepted(id)
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&waiting("a")).await.unwrap();
    store.started("a");
    let record = store.get("a").await.unwrap().unwrap();
    assert_eq!(record.status, Status::Running);
    store.accept(&waiting("b")).await.unwrap();
    drop(store);

    let store = Store::open(dir.path(), KEEP).unwrap();
    let ids: Vec<_> = store.unfinished().await.unwrap();
    let ids: Vec<_> = ids.iter().map(|accepted| accepted.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    // With nothing behind it, in its time.
    store.accept(&waiting("c")).await.unwrap();
    let other = Store::open(dir.path(), KEEP).unwrap();
    while other.unfinished().await.unwrap().len() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
