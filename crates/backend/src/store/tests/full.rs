//! A full disk, and values that are too large.

use super::super::writer::Database;
use super::*;

/// The writer without its thread.
fn disk(dir: &TempDir, retention: Retention) -> Database {
    Database::new(
        schema::open(&dir.path().join("jobs.db")).unwrap(),
        retention,
    )
}

fn finish(execution: &Arc<Execution>) -> Command {
    Command::Write {
        write: Write::Finished(ended(Arc::clone(execution))),
        done: None,
    }
}

fn started(id: &str) -> Command {
    Command::Write {
        write: Write::Started { id: id.into() },
        done: None,
    }
}

/// An accept, and the receiver of its result.
fn accept(id: &str) -> (Command, oneshot::Receiver<Result<(), StoreError>>) {
    let (done, answer) = oneshot::channel();
    let write = Write::accept(&accepted(id)).unwrap();
    let done = Some(done);
    (Command::Write { write, done }, answer)
}

fn flush() -> (Command, oneshot::Receiver<Result<(), StoreError>>) {
    let (done, answer) = oneshot::channel();
    (Command::Flush { done }, answer)
}

/// Limits the growth of the file to `pages`, as a nearly full disk does.
fn leave_pages(disk: &Database, pages: i64) {
    let used: i64 = disk
        .connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    // The pragma answers with the new value.
    disk.connection
        .pragma_update_and_check(None, "max_page_count", used + pages, |_| Ok(()))
        .unwrap();
}

#[test]
fn a_failed_write_does_not_fail_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir, KEEP);
    leave_pages(&disk, 8);
    let large = printing("large", vec![b'x'; 1 << 20]);
    disk.write(vec![
        finish(&execution("before")),
        finish(&large),
        finish(&execution("after")),
    ]);
    assert_eq!(stored(&dir, "before"), Some(execution("before")));
    assert_eq!(stored(&dir, "large"), None);
    assert_eq!(stored(&dir, "after"), Some(execution("after")));
}

#[test]
fn a_result_that_is_not_written_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir, KEEP);
    leave_pages(&disk, 0);
    let large = printing("large", vec![b'x'; 1 << 20]);
    disk.write(vec![finish(&large)]);
    let failures = disk.shared.failed_writes().unwrap();
    assert_eq!((failures.writes, failures.bytes), (1, (1 << 20) + 1));
    assert!(failures.error.contains("full"), "{failures:?}");
}

#[tokio::test]
async fn a_result_that_is_not_written_is_still_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(&dir, KEEP);
    leave_pages(&disk, 0);
    let store = Store {
        writer: Arc::new(Writer::start(disk.connection, KEEP).unwrap()),
        second: Arc::new(Mutex::new(file(&dir))),
    };
    let large = printing("large", vec![b'x'; 1 << 20]);
    assert!(store.finished_now(ended(Arc::clone(&large))).await.is_err());
    assert_eq!(stored(&dir, "large"), None);
    let record = store.get("large").await.unwrap().unwrap();
    assert_eq!(record.result, Some(large));
    assert!(store.flush().await.is_err());
}

#[test]
fn retries_succeed_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir, KEEP);
    leave_pages(&disk, 0);
    let large = printing("large", vec![b'x'; 1 << 20]);
    disk.write(vec![finish(&large)]);
    disk.retry();
    assert!(
        disk.shared.failed_writes().is_some(),
        "there is no space yet"
    );

    leave_pages(&disk, 10_000);
    disk.retry();
    assert_eq!(disk.shared.failed_writes(), None);
    assert_eq!(stored(&dir, "large"), Some(large));
}

#[test]
fn a_flush_reports_failed_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir, KEEP);
    leave_pages(&disk, 0);
    let large = printing("large", vec![b'x'; 1 << 20]);
    let (command, mut answer) = flush();
    disk.write(vec![finish(&large), command]);
    let error = answer.try_recv().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("1 writes") && error.contains("full"),
        "{error}"
    );

    leave_pages(&disk, 10_000);
    let (command, mut answer) = flush();
    disk.write(vec![command]);
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_failed_accept_returns_its_error_and_queues_a_probe() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir, KEEP);
    leave_pages(&disk, 0);
    let mut long = accepted("a");
    long.request.code = "x".repeat(1 << 20);
    let (done, mut answer) = oneshot::channel();
    let write = Write::accept(&long).unwrap();
    let done = Some(done);
    disk.write(vec![Command::Write { write, done }]);
    assert!(answer.try_recv().unwrap().is_err());
    assert_eq!(disk.shared.failed_writes().unwrap().writes, 1);

    leave_pages(&disk, 10_000);
    disk.retry();
    assert_eq!(disk.shared.failed_writes(), None);
    assert!(
        unfinished(&file(&dir)).unwrap().is_empty(),
        "it was refused"
    );
}

#[test]
fn a_late_start_does_not_overwrite_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir, KEEP);
    disk.write(vec![accept("a").0, finish(&execution("a")), started("a")]);
    let record = get(&file(&dir), "a").unwrap().unwrap();
    assert_eq!(record.summary.status, Status::Done);
}

#[test]
fn a_result_over_a_quarter_of_the_store_loses_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let small = Retention {
        bytes: 4 << 20,
        ..KEEP
    };
    let mut disk = disk(&dir, small);
    disk.write(vec![finish(&printing("a", vec![b'x'; 2 << 20]))]);
    let result = stored(&dir, "a").unwrap();
    assert_eq!((result.exit_code, result.stdout.0.len()), (Some(3), 0));
    let error = result.error.clone().unwrap();
    assert!(error.contains("output was not stored"), "{error}");
    assert_eq!(disk.shared.failed_writes(), None);
}
