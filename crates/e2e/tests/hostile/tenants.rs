//! One API key against another's executions.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use cloude_e2e::cloude::LONGEST;
use cloude_e2e::curl::{self, Answer};
use cloude_e2e::host;
use serde_json::json;

use crate::case::{Case, case, shared, still_serves};

/// A new key of the shared server, which a client on loopback may make.
struct Key {
    id: String,
    secret: String,
}

impl Key {
    fn new(body: serde_json::Value) -> Self {
        let answer = curl::post(&url("/v1/keys"), &body.to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        let text = |field: &str| answer.body[field].as_str().unwrap().to_owned();
        Key {
            id: text("id"),
            secret: text("key"),
        }
    }

    fn ordinary() -> Self {
        Key::new(json!({"scopes": ["run", "read"]}))
    }

    fn revoke(&self) {
        let url = url(&format!("/v1/keys/{}", self.id));
        let answer = curl::curl(&["--request", "DELETE", &url]).unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// A request with this key.
    fn send(&self, arguments: &[&str], path: &str) -> Answer {
        let header = format!("authorization: Bearer {}", self.secret);
        let url = url(path);
        let all = [&["--header", &header], arguments, &[url.as_str()]].concat();
        curl::curl(&all).unwrap()
    }

    fn run(&self, code: &str) -> Answer {
        let body = json!({"language": "bash", "code": code}).to_string();
        let json = [
            "--header",
            "content-type: application/json",
            "--data-binary",
        ];
        self.send(&[json.as_slice(), &[&body]].concat(), "/v1/executions")
    }
}

fn url(path: &str) -> String {
    format!("{}{path}", shared().url())
}

/// A case in which another key sends a request for the execution `ID` of the first key.
fn foreign(
    name: &str,
    naive: &str,
    arguments: &'static [&'static str],
    path: &'static str,
) -> Case {
    case(&format!("tenant::{name}"), naive, move || {
        let (owner, other) = (Key::ordinary(), Key::ordinary());
        let done = owner.run("echo secret of the owner");
        let path = path.replace("ID", done.body["id"].as_str().unwrap());
        let answer = other.send(arguments, &path);
        assert_eq!(answer.status, 404, "{answer:?}");
        // The control: it is there.
        let own = owner.send(&[], &path);
        assert_eq!(own.status, 200, "{own:?}");
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        foreign(
            "reads_another_ones_result",
            "whoever knows or guesses an id reads code and output",
            &[],
            "/v1/executions/ID",
        ),
        foreign(
            "reads_by_the_original_api",
            "the older path has no check",
            &[],
            "/status/ID",
        ),
        foreign(
            "cancels_another_ones_execution",
            "whoever knows an id ends the execution",
            &["--request", "DELETE"],
            "/v1/executions/ID",
        ),
        case(
            "tenant::guessed_secret",
            "a known id with any secret is accepted",
            || {
                let key = Key::ordinary();
                let mut secret = key.secret.clone();
                let last = secret.pop().unwrap();
                secret.push(if last == '0' { '1' } else { '0' });
                let guessed = Key {
                    id: key.id.clone(),
                    secret,
                };
                assert_eq!(guessed.run("true").status, 401);
            },
        ),
        case(
            "tenant::scope_exceeded",
            "a key for reading runs programs and makes keys",
            || {
                let reader = Key::new(json!({"scopes": ["read"]}));
                assert_eq!(reader.run("true").status, 403);
                let json = [
                    "--header",
                    "content-type: application/json",
                    "--data-binary",
                ];
                let body = r#"{"scopes":["admin"]}"#;
                for key in [&reader, &Key::ordinary()] {
                    let answer = key.send(&[json.as_slice(), &[body]].concat(), "/v1/keys");
                    assert_eq!(answer.status, 403, "{answer:?}");
                }
            },
        ),
        case(
            "tenant::revoked_key",
            "a revoked key works until the next start",
            || {
                let key = Key::ordinary();
                key.revoke();
                assert_eq!(key.run("true").status, 401);
            },
        ),
        case(
            "tenant::expired_key",
            "an expired key works until the next start",
            || {
                let key = Key::new(json!({"scopes": ["run", "read"], "expires_s": 1}));
                host::wait_for("the key expires", || {
                    (key.send(&[], "/v1/languages").status == 401).then_some(())
                });
            },
        ),
        case(
            "tenant::revoked_in_the_middle_of_a_stream",
            "the stream of a revoked key goes on",
            || {
                let key = Key::ordinary();
                let mut client = Command::new(cloude_e2e::binaries::binary("cloude"))
                    .args(["run", "-l", "bash", "--timeout", LONGEST, "-c"])
                    .arg("echo up; exec sleep 100000")
                    .env("CLOUDE_BACKEND", shared().url())
                    .env("CLOUDE_API_KEY", &key.secret)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut output = BufReader::new(client.stdout.take().unwrap());
                let mut line = String::new();
                output.read_line(&mut line).unwrap();
                assert_eq!(line, "up\n");

                key.revoke();

                let mut rest = String::new();
                output.read_to_string(&mut rest).unwrap();
                let status = client.wait().unwrap();
                assert!(!status.success(), "{rest}");
                still_serves(&shared());
            },
        ),
        case(
            "tenant::secrets_in_the_log",
            "keys and programs can be read in the server's log",
            || {
                let key = Key::ordinary();
                let answer = key.run("echo value-that-nobody-logs");
                assert_eq!(answer.status, 200, "{answer:?}");
                let log = shared().log();
                assert!(!log.contains(&key.secret));
                assert!(!log.contains("value-that-nobody-logs"));
            },
        ),
    ]
}
