//! A program that says hello, and a client that has it executed.

use std::time::Instant;

use cloude_e2e::backend::Backend;
use cloude_e2e::host;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionRequest, StartKind};

/// A language with a program that says hello.
pub struct Hello {
    /// Its name.
    pub language: &'static str,
    /// The program.
    pub code: &'static str,
    /// A plain process that does the same, without the language's file.
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

/// One client, with a connection that is kept.
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

    /// The result, and the milliseconds from the request to the whole of it. Anything but success ends
    /// the benchmark.
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

/// Until an execution finds a fork that waited for it.
pub fn warm_up(client: &Client, request: &ExecutionRequest) {
    host::wait_for("a fork waits in the pool", || {
        let (execution, _) = client.run(request);
        (execution.start == StartKind::Pool).then_some(())
    });
}
