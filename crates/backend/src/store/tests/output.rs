//! Large output, which is not part of the JSON of its result.

use cloude_protocol::agent::StageResult;
use cloude_protocol::api::CompileReport;

use super::*;

fn stage() -> StageResult {
    StageResult {
        cause: Cause::Exit,
        exit_code: Some(0),
        signal: None,
        wall_time_us: 1,
        cpu_time_us: 1,
        peak_memory_bytes: 1,
        stdout_bytes: 0,
        stdout_dropped: 0,
        stderr_bytes: 0,
        stderr_dropped: 0,
        warm: false,
        message: None,
    }
}

fn count(dir: &TempDir, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    file(dir).query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn large_output_is_stored_as_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    let mut large = Execution::clone(&printing("a", vec![1; 3 << 20]));
    large.stderr.0 = vec![2; 1 << 20];
    large.compile = Some(CompileReport {
        result: stage(),
        stdout: vec![3; 5].into(),
        stderr: vec![0xff; 100_000].into(),
        shared: false,
    });
    let large = Arc::new(large);
    store.finished_now(ended(Arc::clone(&large))).await.unwrap();

    assert!(stored(&dir, "a") == Some(large));
    let used = prune::used_bytes(&file(&dir)).unwrap();
    assert!(used < (9 << 20) / 2, "{used} bytes for 4 MiB and 100 kB");
    assert_eq!(count(&dir, "outputs"), 3 + 1 + 1 + 1);
}

#[tokio::test]
async fn small_output_takes_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    let small = printing("a", vec![1; 1000]);
    store.finished_now(ended(Arc::clone(&small))).await.unwrap();
    assert_eq!(stored(&dir, "a"), Some(small));
    assert_eq!(count(&dir, "outputs"), 0);
}

#[tokio::test]
async fn a_removed_result_takes_its_output_along() {
    let dir = tempfile::tempdir().unwrap();
    let few = Retention { jobs: 1, ..KEEP };
    let store = Store::open(dir.path(), few).unwrap();
    for id in ["a", "b"] {
        let large = printing(id, vec![b'x'; 100_000]);
        store.finished_now(ended(large)).await.unwrap();
    }
    drop(store);
    // Opening the store prunes it.
    let store = Store::open(dir.path(), few).unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert!(store.get("b").await.unwrap().is_some());
    assert_eq!((count(&dir, "jobs"), count(&dir, "outputs")), (1, 2));
}

#[test]
fn a_pass_truncates_the_write_ahead_log() {
    let dir = tempfile::tempdir().unwrap();
    let connection = schema::open(&dir.path().join("jobs.db")).unwrap();
    let large = printing("a", vec![b'x'; 4 << 20]);
    let write = Write::Finished(ended(large));
    write.apply_alone(&connection, usize::MAX).unwrap();
    let log = dir.path().join("jobs.db-wal");
    assert!(log.metadata().unwrap().len() > 4 << 20);

    prune::prune(&connection, KEEP).unwrap();

    assert_eq!(log.metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn a_transaction_with_large_output_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    // The writer is behind: all of these wait at once.
    let blocker = file(&dir);
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..12 {
        store.finished(ended(printing(&number.to_string(), vec![b'x'; 8 << 20])));
    }
    blocker.execute_batch("COMMIT").unwrap();
    store.flush().await.unwrap();

    let log = dir.path().join("jobs.db-wal").metadata().unwrap().len();
    assert!(log < 48 << 20, "{log} bytes for 96 MiB");
}
