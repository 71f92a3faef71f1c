//! Programs that print "hello", and an HTTP client that executes them.

use std::time::Instant;

use cloude_e2e::backend::Backend;
use cloude_e2e::host;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionRequest, StartKind};

/// A language with its hello program.
pub struct Hello {
    /// The language's name.
    pub language: &'static str,
    /// The program for `clouded`.
    pub code: &'static str,
    /// The command of the same program as a plain process (bare.rs).
    pub bare: [&'static str; 3],
}

pub const HELLOS: [Hello; 2] = [
    Hello {
        language: "python",
        code: "print('hello')",
        bare: ["python3", "-c", "print('hello')"],
    },
    Hello {
        language: "node",
        code: "console.log('hello')",
        bare: ["node", "-e", "console.log('hello')"],
    },
];

/// One client with a persistent HTTP connection.
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    pub fn new(backend: &Backend) -> Self {
        Client {
            agent: ureq::Agent::new_with_defaults(),
            url: format!("{}/v1/executions", backend.url()),
        }
    }

    /// Executes a program. Returns the result and the milliseconds from the request to the last byte of the response.
    /// Panics if the program does not exit with 0.
    pub fn run(&self, request: &ExecutionRequest) -> (Execution, f64) {
        let body = serde_json::to_vec(request).unwrap();
        let start = Instant::now();
        let mut answer = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .send(&body[..])
            .unwrap_or_else(|error| panic!("{}: {error}", self.url));
        let text = answer.body_mut().read_to_vec().unwrap();
        let elapsed = start.elapsed().as_secs_f64() * 1e3;
        let execution: Execution = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            (execution.cause, execution.exit_code),
            (Cause::Exit, Some(0)),
            "{execution:?}"
        );
        (execution, elapsed)
    }
}

pub fn request(language: &str, code: &str) -> ExecutionRequest {
    ExecutionRequest {
        language: language.to_owned(),
        code: code.to_owned(),
        ..ExecutionRequest::default()
    }
}

/// Repeats the execution until one gets a paused fork from the pool.
pub fn warm_up(client: &Client, request: &ExecutionRequest) {
    host::wait_for("a fork waits in the pool", || {
        let (execution, _) = client.run(request);
        (execution.start == StartKind::Pool).then_some(())
    });
}
