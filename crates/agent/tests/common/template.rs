//! Templates with a waiting interpreter.

use std::collections::BTreeMap;

use cloude_protocol::agent::{File, Identity, Runner, WarmRequest, WarmResponse};
use cloude_protocol::boot::ImageConfig;

use super::{Agent, Answer, PATIENCE, TOKEN, agent_template};

pub fn template() -> Agent {
    agent_template(&ImageConfig::default())
}

pub fn identity() -> Option<Identity> {
    Some(Identity {
        entropy: "5a".repeat(32),
        wall_clock_ns: 1_800_000_000_000_000_000,
        hostname: "fork".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        boot_id: "01234567-89ab-cdef-0123-456789abcdef".into(),
        token: "b".repeat(64),
        network: None,
    })
}

pub fn post(agent: &Agent, path: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    agent.raw(&[head.as_bytes(), body].concat())
}

pub fn file(path: &str, content: &str) -> File {
    File {
        path: path.into(),
        content: content.into(),
        mode: None,
    }
}

/// The runner of a language, with a command of this machine's.
pub fn runner(language: &str, argv: &[&str]) -> Runner {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
    let language = cloude_protocol::languages::load(&dir, language).unwrap();
    let warm = language.warm.unwrap().runner.unwrap();
    Runner {
        argv: argv.iter().map(|text| text.to_string()).collect(),
        env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        hook_env: warm.env,
        files: warm
            .files
            .iter()
            .map(|(path, text)| file(path, text))
            .collect(),
        cold_env: warm.cold_env,
        timeout_ms: PATIENCE.as_millis() as u64,
    }
}

pub fn warmed(runner: &Runner) -> Agent {
    warmed_in(template(), runner)
}

pub fn warmed_in(agent: Agent, runner: &Runner) -> Agent {
    let work = WarmRequest {
        runner: Some(runner.clone()),
        ..WarmRequest::default()
    };
    let answer = post(&agent, "/warm", &serde_json::to_vec(&work).unwrap());
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{text}");
    assert!(
        serde_json::from_slice::<WarmResponse>(&answer.body)
            .unwrap()
            .runner
    );
    agent
}

/// The distribution's interpreter: shims of version managers start a shell first.
pub const PYTHON: &str = "/usr/bin/python3";
