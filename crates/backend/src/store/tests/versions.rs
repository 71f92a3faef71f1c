//! Rows and schemas of other versions.

use super::*;

#[tokio::test]
async fn one_unreadable_row_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), KEEP).unwrap();
    for id in ["a", "b", "c", "d"] {
        store.accept(&accepted(id)).await.unwrap();
    }
    let other = file(&dir);
    let set = |id: &str, request: &str| {
        other
            .execute("UPDATE jobs SET request = ?2 WHERE id = ?1", [id, request])
            .unwrap()
    };
    set("a", "{\"language\": \"py");
    set("b", r#"{"language":"py","code":"x","newer_field":1}"#);
    other
        .execute("UPDATE jobs SET attempts = 'many' WHERE id = 'c'", [])
        .unwrap();
    let found = store.unfinished().await.unwrap();
    let reasons: Vec<_> = found
        .iter()
        .filter_map(|row| row.as_ref().err())
        .map(|row| (row.id.as_str(), row.reason.as_str()))
        .collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(
        reasons[0].0 == "a" && reasons[0].1.contains("EOF"),
        "{reasons:?}"
    );
    assert!(reasons[1].1.contains("newer_field"), "{reasons:?}");
    assert!(reasons[2].1.contains("attempts"), "{reasons:?}");
    assert_eq!(found[3], Ok(accepted("d")));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), KEEP).unwrap());
    let version = |connection: &Connection| {
        connection
            .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let newer = version(&file(&dir)) + 1;
    file(&dir)
        .pragma_update(None, "user_version", newer)
        .unwrap();
    let error = Store::open(dir.path(), KEEP).unwrap_err().to_string();
    assert!(
        error.contains(&format!("schema {newer}")) && error.contains("move jobs.db away"),
        "{error}"
    );
    assert_eq!(version(&file(&dir)), newer);
}

/// The schema of clouded 0.1.0, before its store had migrations.
const FIRST_SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY, language TEXT NOT NULL, request TEXT NOT NULL, status TEXT NOT NULL,
        durable INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, result TEXT,
        created_ms INTEGER NOT NULL, finished_ms INTEGER
    );
    CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished_ms);
    CREATE TABLE IF NOT EXISTS workers (pid INTEGER PRIMARY KEY, start_time INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    PRAGMA user_version = 1;
";

#[tokio::test]
async fn the_first_schema_is_migrated_with_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let old = file(&dir);
    old.execute_batch(FIRST_SCHEMA).unwrap();
    let request = serde_json::to_string(&accepted("a").request).unwrap();
    let result = serde_json::to_string(&*execution("done")).unwrap();
    for (id, durable, attempts) in [("a", 1, 2), ("waited", 0, 1)] {
        old.execute(
            "INSERT INTO jobs (id, language, request, status, durable, attempts, created_ms)
             VALUES (?1, 'python', ?2, 'running', ?3, ?4, 1)",
            params![id, request, durable, attempts],
        )
        .unwrap();
    }
    old.execute(
        "INSERT INTO jobs (id, language, request, status, durable, result, created_ms, finished_ms)
         VALUES ('done', 'python', '', 'done', 0, ?1, 1, 2)",
        params![result],
    )
    .unwrap();
    old.execute_batch("INSERT INTO workers VALUES (7, 9)")
        .unwrap();
    drop(old);

    let store = Store::open(dir.path(), KEEP).unwrap();
    let mut expected = accepted("a");
    expected.attempts = 2;
    expected.tenant = Tenant::local();
    assert_eq!(store.unfinished().await.unwrap(), [Ok(expected)]);
    let record = store.get("done").await.unwrap().unwrap();
    assert_eq!(record.result, Some(execution("done")));
    assert_eq!(
        store.get("waited").await.unwrap(),
        None,
        "a request that was not durable is removed"
    );
    let vacuum: i64 = file(&dir)
        .pragma_query_value(None, "auto_vacuum", |row| row.get(0))
        .unwrap();
    assert_eq!(vacuum, 2, "the file can shrink");
}
