//! Throughput: hello executions a second, without pauses between the requests.

use std::time::{Duration, Instant};

use cloude_e2e::backend::Backend;
use cloude_protocol::api::{ExecutionRequest, StartChoice};

use crate::hello::{self, Client, Hello};
use crate::report::{Report, Row};

/// Duration of the measurement with forks.
const SUSTAINED: Duration = Duration::from_secs(20);
/// Duration of the measurement with cold boots, longer because each one takes longer.
const SUSTAINED_COLD: Duration = Duration::from_secs(60);

/// Executions a second with one client for each processor. A client sends a request as soon as it has a response.
fn rate(backend: &Backend, request: &ExecutionRequest, time: Duration) -> f64 {
    let clients = std::thread::available_parallelism().map_or(1, usize::from);
    let start = Instant::now();
    let count: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::new(backend);
                    let mut count = 0;
                    while start.elapsed() < time {
                        client.run(request);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    count as f64 / start.elapsed().as_secs_f64()
}

pub fn measure(report: &mut Report, backend: &Backend, hello: &Hello) {
    let plain = hello::request(hello.language, hello.code);
    let cold = ExecutionRequest {
        start: Some(StartChoice::Cold),
        ..plain.clone()
    };
    let forks = rate(backend, &plain, SUSTAINED);
    let boots = rate(backend, &cold, SUSTAINED_COLD);
    let row = Row::new(
        format!(
            "{} hello, sustained: times the rate of cold boots",
            hello.language
        ),
        format!("{forks:.1} a second"),
        forks / boots,
    );
    report.push(row.against(format!("{boots:.2} a second")));
}
