//! API keys: authentication, scopes, expiry, revocation.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cloude_backend::config::{Auth, Config};
use cloude_backend::store::{Retention, Store, StoredKey};
use cloude_protocol::keys::{KeyInfo, Scope};
use serde_json::json;
use sha2::{Digest, Sha256};
use support::{Backend, capacity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PRINT: &str = r#"{"language":"python","code":"print x"}"#;

/// A server that requires keys.
async fn strict() -> Backend {
    with_auth(Auth::Required).await
}

async fn with_auth(auth: Auth) -> Backend {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let change = |config: &mut Config| config.api.auth = auth;
    Backend::with(capacity(2, 16), folder, change).await
}

/// Every endpoint that needs a scope.
const ENDPOINTS: [(&str, &str, Scope); 16] = [
    ("POST", "/run", Scope::Run),
    ("POST", "/v1/executions", Scope::Run),
    ("DELETE", "/v1/executions/a", Scope::Run),
    ("GET", "/v1/executions/a", Scope::Read),
    ("GET", "/status/a", Scope::Read),
    ("GET", "/v1/languages", Scope::Read),
    ("GET", "/v1/languages/python", Scope::Read),
    ("GET", "/v1/installation", Scope::Read),
    ("GET", "/metrics", Scope::Read),
    ("GET", "/v1/usage", Scope::Read),
    ("GET", "/v1/templates", Scope::Read),
    ("POST", "/v1/templates", Scope::Admin),
    ("DELETE", "/v1/templates/a", Scope::Admin),
    ("GET", "/v1/keys", Scope::Admin),
    ("POST", "/v1/keys", Scope::Admin),
    ("DELETE", "/v1/keys/a", Scope::Admin),
];

#[tokio::test]
async fn without_a_key_only_health_and_root_answer() {
    let backend = strict().await;
    for (method, path, _) in ENDPOINTS {
        let answer = backend.send(method, path, &[], "").await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(
            answer.headers["www-authenticate"],
            "Bearer realm=\"cloude\""
        );
        let error = answer.failure();
        assert!(error.contains("Authorization: Bearer"), "{error}");
    }
    assert_eq!(backend.get("/health").await.status, 200);
    assert_eq!(backend.get("/").await.status, 200);
}

#[tokio::test]
async fn a_key_without_the_scope_gets_403_that_names_it() {
    let backend = strict().await;
    for given in [Scope::Run, Scope::Read] {
        let (key, id) = backend.key(&[given]).await;
        for (method, path, needed) in ENDPOINTS {
            let answer = backend.send_as(&key, method, path, "").await;
            if needed == given {
                assert!(![401, 403].contains(&answer.status), "{method} {path}");
                continue;
            }
            assert_eq!(answer.status, 403, "{given} {method} {path}");
            let error = answer.failure();
            assert!(
                error.contains(&format!("`{id}` lacks the scope `{needed}`")),
                "{error}"
            );
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(
                challenge.ends_with(&format!("scope=\"{needed}\"")),
                "{challenge}"
            );
        }
    }
}

#[tokio::test]
async fn an_admin_key_may_use_every_endpoint() {
    let backend = strict().await;
    let (key, _) = backend.key(&[Scope::Admin]).await;
    for (method, path, _) in ENDPOINTS {
        let status = backend.send_as(&key, method, path, "").await.status;
        assert!(![401, 403].contains(&status), "{method} {path}: {status}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_the_servers_is_refused() {
    for auth in [Auth::Required, Auth::Auto] {
        let backend = with_auth(auth).await;
        let (key, id) = backend.key(&[Scope::Run]).await;
        let other = if key.ends_with('0') { '1' } else { '0' };
        let forged = format!("{}{other}", &key[..key.len() - 1]);
        let unknown = key.replace(&id, "0123456789ab");
        for wrong in [forged.as_str(), &unknown, "", "cloude_", "x"] {
            let answer = backend
                .send_as(wrong, "POST", "/v1/executions", PRINT)
                .await;
            assert_eq!(answer.status, 401, "{auth:?} {wrong}");
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.contains("invalid_token"), "{challenge}");
        }
        for header in [format!("Basic {key}"), key.clone()] {
            let headers = [("authorization", header.as_str())];
            assert_eq!(
                backend.send("GET", "/metrics", &headers, "").await.status,
                401
            );
        }
        let answer = backend.send_as(&key, "POST", "/v1/executions", PRINT).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn on_loopback_a_request_without_a_key_is_served() {
    let backend = with_auth(Auth::Auto).await;
    let request = json!({"language": "python", "code": "print x"});
    assert_eq!(backend.post("/v1/executions", request).await.status, 200);
    assert_eq!(backend.get("/v1/keys").await.status, 200);
}

#[tokio::test]
async fn an_expired_key_is_refused_with_the_reason() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let secret = [7; 32];
    let info = KeyInfo {
        id: "0123456789ab".into(),
        name: String::new(),
        scopes: vec![Scope::Read],
        created_ms: 0,
        expires_ms: Some(1),
        revoked_ms: None,
    };
    let retention = Retention {
        age_ms: i64::MAX / 4,
        jobs: 10,
        bytes: 1 << 30,
    };
    let hash = Sha256::digest(secret).into();
    let store = Store::open(folder.path(), retention).unwrap();
    store.add_key(StoredKey { info, hash }).await.unwrap();
    drop(store);
    let backend = Backend::with(capacity(1, 1), folder, |_| {}).await;

    let key = format!("cloude_0123456789ab_{}", const_hex::encode(secret));
    let answer = backend.send_as(&key, "GET", "/v1/languages", "").await;

    assert_eq!(answer.status, 401);
    let error = answer.failure();
    assert!(error.contains("has expired"), "{error}");
}

#[tokio::test]
async fn a_key_created_over_the_api_works_until_it_is_revoked() {
    let backend = strict().await;
    let (admin, _) = backend.key(&[Scope::Admin]).await;
    let body = r#"{"name":"ci","scopes":["run"],"expires_s":3600}"#;

    let created = backend.send_as(&admin, "POST", "/v1/keys", body).await;

    assert_eq!(created.status, 201);
    let key = created.json()["key"].as_str().unwrap().to_owned();
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let run = backend.send_as(&key, "POST", "/v1/executions", PRINT).await;
    assert_eq!(run.status, 200);
    let path = format!("/v1/keys/{id}");
    for _ in 0..2 {
        assert_eq!(
            backend.send_as(&admin, "DELETE", &path, "").await.status,
            204
        );
    }
    let refused = backend.send_as(&key, "POST", "/v1/executions", PRINT).await;
    assert_eq!(refused.status, 401);
    assert!(refused.failure().contains("revoked"));
    let list = backend.send_as(&admin, "GET", "/v1/keys", "").await;
    assert!(list.json()[1]["revoked_ms"].is_i64());
    assert!(!String::from_utf8_lossy(&list.body).contains(&key));
    let unknown = backend
        .send_as(&admin, "DELETE", "/v1/keys/nobody", "")
        .await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn an_invalid_key_request_is_refused_with_its_field() {
    let backend = with_auth(Auth::Auto).await;
    for (body, field) in [
        (json!({"scopes": []}), "scopes"),
        (json!({"scopes": ["root"]}), "root"),
        (json!({"expires_s": 0}), "expires_s"),
        (json!({"expires_s": u64::MAX}), "expires_s"),
        (json!({"name": "a\nb"}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"nmae": "x"}), "nmae"),
    ] {
        let answer = backend.post("/v1/keys", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        let error = answer.failure();
        assert!(error.contains(field), "{body}: {error}");
    }
}

#[tokio::test]
async fn revoking_a_key_ends_its_stream_and_kills_the_vm() {
    let backend = strict().await;
    let (key, id) = backend.key(&[Scope::Run]).await;
    let mut stream = backend.stream().await;
    let body = r#"{"language":"python","code":"hold"}"#;
    let request = format!(
        "POST /v1/executions HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\
         authorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("held") {
        seen.push(char::from(stream.read_u8().await.unwrap()));
    }

    assert!(backend.service.keys().revoke(&id).await.unwrap());

    // The connection ends without the result and without the last chunk.
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    assert!(ended.is_ok(), "the stream goes on");
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        !rest.contains("result") && !rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
    backend.alive(0).await;
}

#[tokio::test]
async fn revoking_a_key_ends_its_waiting_request() {
    let backend = Arc::new(strict().await);
    let (key, id) = backend.key(&[Scope::Run]).await;
    let waiting = tokio::spawn({
        let backend = Arc::clone(&backend);
        let body = r#"{"language":"python","code":"hold"}"#;
        async move { backend.send_as(&key, "POST", "/v1/executions", body).await }
    });
    backend.alive(1).await;

    backend.service.keys().revoke(&id).await.unwrap();

    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.failure().contains("revoked"));
    backend.alive(0).await;
}

#[tokio::test]
async fn the_store_has_no_key_in_clear_and_keeps_revocations() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let start = || Backend::with(capacity(1, 4), Arc::clone(&folder), |_| {});
    let first = start().await;
    let (kept, _) = first.key(&[Scope::Read]).await;
    let (revoked, id) = first.key(&[Scope::Read]).await;
    first.service.keys().revoke(&id).await.unwrap();

    let second = start().await;

    let status = |key: String| {
        let second = &second;
        async move {
            second
                .send_as(&key, "GET", "/v1/languages", "")
                .await
                .status
        }
    };
    assert_eq!(status(kept.clone()).await, 200);
    assert_eq!(status(revoked).await, 401);
    let secret = kept.rsplit('_').next().unwrap();
    let raw = const_hex::decode(secret).unwrap();
    for entry in folder.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!has(secret.as_bytes()) && !has(&raw), "{}", path.display());
    }
}
