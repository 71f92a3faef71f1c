use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Artifact, Execution, ExecutionRequest, StartKind, Timings};
use tempfile::TempDir;

use cloude_protocol::api::Status;

use super::*;

mod full;
mod output;
mod versions;

const KEEP: Retention = Retention {
    age_ms: i64::MAX / 4,
    jobs: 100,
    bytes: 1 << 30,
};

fn accepted(id: &str) -> Accepted {
    let request = ExecutionRequest {
        language: "py".into(),
        code: "print(1)".into(),
        ..Default::default()
    };
    Accepted {
        id: id.into(),
        tenant: Tenant::of_key("k"),
        language: "python".into(),
        request,
        attempts: 0,
        created_ms: 1,
        key: None,
        batch: None,
        dialect: None,
    }
}

fn printing(id: &str, stdout: Vec<u8>) -> Arc<Execution> {
    Arc::new(Execution {
        id: id.into(),
        language: "python".into(),
        version: Some("Python 3.13.5".into()),
        image_digest: Some("sha256:1".into()),
        status: Status::Done,
        cause: Cause::Exit,
        exit_code: Some(3),
        signal: None,
        stdout: stdout.into(),
        stderr: "e".into(),
        compile: None,
        run: None,
        timings: Timings::default(),
        start: StartKind::Cold,
        memory_bytes: 512 << 20,
        ip: None,
        network: None,
        artifacts: Vec::new(),
        artifacts_dropped: 0,
        labels: Default::default(),
        created_ms: 0,
        error: None,
    })
}

fn execution(id: &str) -> Arc<Execution> {
    printing(id, vec![0xff, b'a'])
}

/// A result that is not durable.
fn ended(result: Arc<Execution>) -> Arc<Ended> {
    Arc::new(Ended {
        result,
        tenant: Tenant::local(),
        files: Vec::new(),
        order: None,
    })
}

/// Another connection to the file.
fn file(dir: &TempDir) -> Connection {
    Connection::open(dir.path().join("jobs.db")).unwrap()
}

fn stored(dir: &TempDir, id: &str) -> Option<Arc<Execution>> {
    get(&file(dir), id)
        .unwrap()
        .and_then(|record| record.result)
}

#[tokio::test]
async fn a_result_is_read_back_whole_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    store.started("a").await.unwrap();
    store.finished(ended(execution("a")));
    drop(store);

    let store = Store::open(dir.path(), KEEP).unwrap();
    let record = store.get("a").await.unwrap().unwrap();
    assert_eq!(record.summary.status, Status::Done);
    assert_eq!(record.result, Some(execution("a")));
    assert!(store.unfinished().await.unwrap().is_empty());
    assert_eq!(store.get("b").await.unwrap(), None);
}

#[tokio::test]
async fn attempts_are_counted_before_started_returns() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    store.accept(&accepted("b")).await.unwrap();
    store.started("b").await.unwrap();
    let mut expected = accepted("b");
    expected.attempts = 1;
    // The state after SIGKILL.
    let found = unfinished(&file(&dir)).unwrap();
    assert_eq!(found, [Ok(accepted("a")), Ok(expected)]);
}

#[tokio::test]
async fn an_interrupted_attempt_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    store.started("a").await.unwrap();
    store.interrupted("a");
    store.flush().await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), [Ok(accepted("a"))]);
    let record = store.get("a").await.unwrap().unwrap();
    assert_eq!(record.summary.status, Status::Pending);
}

#[tokio::test]
async fn an_accepted_execution_is_in_the_file_before_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    assert_eq!(unfinished(&file(&dir)).unwrap().len(), 1);
}

#[tokio::test]
async fn a_result_without_an_accepted_row_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.finished_now(ended(execution("a"))).await.unwrap();
    assert_eq!(stored(&dir, "a"), Some(execution("a")));
}

#[tokio::test]
async fn a_duplicate_id_is_an_error_without_a_retry() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    assert!(store.accept(&accepted("a")).await.is_err());
    assert_eq!(store.failed_writes(), None);
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
        store.finished(ended(execution(id)));
    }
    drop(store);
    // Opening the store prunes it.
    let store = Store::open(dir.path(), few).unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert!(store.get("b").await.unwrap().is_some());
    assert!(
        store.get("d").await.unwrap().is_some(),
        "not finished: never pruned"
    );
}

#[tokio::test]
async fn beyond_max_bytes_the_oldest_results_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let small = Retention {
        bytes: 4 << 20,
        ..KEEP
    };
    let store = Store::open(dir.path(), small).unwrap();
    store.accept(&accepted("unfinished")).await.unwrap();
    for number in 0..20 {
        let result = printing(&format!("{number:02}"), vec![b'x'; 512 << 10]);
        store.finished_now(ended(result)).await.unwrap();
    }
    store.flush().await.unwrap();

    assert!(prune::used_bytes(&file(&dir)).unwrap() <= 4 << 20);
    assert_eq!(store.get("00").await.unwrap(), None);
    assert!(store.get("19").await.unwrap().is_some());
    assert_eq!(store.unfinished().await.unwrap().len(), 1);
}

#[tokio::test]
async fn free_pages_return_to_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    let result = printing("a", vec![b'x'; 4 << 20]);
    store.finished_now(ended(result)).await.unwrap();
    drop(store);
    let size = |dir: &TempDir| dir.path().join("jobs.db").metadata().unwrap().len();
    let before = size(&dir);

    let none = Retention { jobs: 0, ..KEEP };
    drop(Store::open(dir.path(), none).unwrap());
    let after = size(&dir);
    assert!(
        after + (3 << 20) < before,
        "{before} and then {after} bytes"
    );
}

#[tokio::test]
async fn a_new_store_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    store.accept(&accepted("a")).await.unwrap();
    for entry in dir.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn artifacts_and_the_order_are_stored_beside_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    let mut result = Arc::unwrap_or_clone(execution("a"));
    let large = vec![7; (1 << 20) + 3];
    for (path, bytes) in [("empty", 0), ("large", large.len())] {
        result.artifacts.push(Artifact {
            path: path.into(),
            bytes: bytes as u64,
            mode: 0o644,
        });
    }
    let result = Arc::new(result);
    let all = Ended {
        result: Arc::clone(&result),
        tenant: Tenant::local(),
        files: vec![Bytes::new(), large.into()],
        order: Some(vec![1, 2, 3]),
    };
    store.finished_now(Arc::new(all)).await.unwrap();

    assert_eq!(stored(&dir, "a"), Some(result), "with its inline output");
    assert_eq!(store.order("a").await.unwrap(), Some(vec![1, 2, 3]));
    let part = |at| store.part("a", file_stream(1), at);
    let (start, bytes) = part(1 << 20).await.unwrap().unwrap();
    assert_eq!((start, &bytes[..]), (1 << 20, &[7, 7, 7][..]));
    assert_eq!(part(2 << 20).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_belongs_to_one_execution_of_its_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    let with_key = |id: &str, tenant: &str| Accepted {
        tenant: Tenant::of_key(tenant),
        key: Some(IdempotencyKey {
            key: "k1".into(),
            hash: [9; 32],
        }),
        ..accepted(id)
    };
    store.accept(&with_key("a", "one")).await.unwrap();
    store.accept(&with_key("b", "other")).await.unwrap();

    let again = store.accept(&with_key("c", "one")).await;

    assert!(matches!(again, Err(StoreError::KeyUsed)));
    assert_eq!(store.get("c").await.unwrap(), None);
    assert_eq!(store.failed_writes(), None);
    let found = store.by_key(&Tenant::of_key("one"), "k1").await.unwrap();
    assert_eq!(found, Some(([9; 32], "a".to_owned())));
}

#[tokio::test]
async fn a_removed_execution_frees_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let none = Retention { jobs: 0, ..KEEP };
    let store = Store::open(dir.path(), none).unwrap();
    let key = IdempotencyKey {
        key: "k1".into(),
        hash: [9; 32],
    };
    let accepted = Accepted {
        key: Some(key),
        ..accepted("a")
    };
    store.accept(&accepted).await.unwrap();
    store.finished_now(ended(execution("a"))).await.unwrap();
    drop(store);

    let store = Store::open(dir.path(), none).unwrap();
    store.flush().await.unwrap();

    assert_eq!(store.by_key(&accepted.tenant, "k1").await.unwrap(), None);
}

#[tokio::test]
async fn a_list_is_filtered_and_ends_where_the_next_page_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    for number in 0..6 {
        let mut row = accepted(&format!("{number}"));
        row.created_ms = 100 + number / 2;
        row.request.labels = [("n".to_owned(), format!("{}", number % 3))].into();
        store.accept(&row).await.unwrap();
    }
    let all = Filter {
        owner: Some(Tenant::of_key("k")),
        status: None,
        language: None,
        labels: Vec::new(),
        before: None,
        limit: 10,
    };
    let ids = async |filter: Filter| {
        let page = store.list(filter).await.unwrap();
        page.into_iter().map(|it| it.id).collect::<String>()
    };

    assert_eq!(ids(all.clone()).await, "543210");
    let before = Some((101, "3".to_owned()));
    let page = Filter {
        before,
        limit: 2,
        ..all.clone()
    };
    assert_eq!(ids(page).await, "21");
    let labels = vec![("n".to_owned(), "1".to_owned())];
    assert_eq!(
        ids(Filter {
            labels,
            ..all.clone()
        })
        .await,
        "41"
    );
    let owner = Some(Tenant::of_key("other"));
    assert_eq!(
        ids(Filter {
            owner,
            ..all.clone()
        })
        .await,
        ""
    );
    let status = Some(Status::Done);
    assert_eq!(ids(Filter { status, ..all }).await, "");
}

#[tokio::test]
async fn a_dialect_outlives_the_request_and_is_deleted_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    for (id, created_ms) in [("a", 1), ("b", 2), ("c", 3)] {
        let dialect = Some(format!("{{\"of\":\"{id}\"}}")).filter(|_| id != "c");
        let row = Accepted {
            dialect,
            created_ms,
            ..accepted(id)
        };
        store.accept(&row).await.unwrap();
    }
    store
        .finished_now(ended(printing("a", b"x".to_vec())))
        .await
        .unwrap();
    let owner = Tenant::of_key("k");

    assert_eq!(
        store.dialect("a").await.unwrap(),
        Some((owner.clone(), "{\"of\":\"a\"}".into()))
    );
    assert_eq!(store.dialect("c").await.unwrap(), None);
    let page = store.dialects(Some(owner), 1, 1).await.unwrap();
    assert_eq!((page.ids, page.total), (vec!["a".to_owned()], 2));
    let foreign = Some(Tenant::of_key("other"));
    assert_eq!(store.dialects(foreign, 9, 0).await.unwrap().total, 0);

    for id in ["a", "b"] {
        store.delete(id).await.unwrap();
    }
    assert!(store.get("a").await.unwrap().is_none());
    assert!(store.get("b").await.unwrap().is_some(), "not finished");
}
