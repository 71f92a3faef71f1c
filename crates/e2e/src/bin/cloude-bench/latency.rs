//! The latency of a hello that gets a fork from the pool, and its phases.

use std::time::Duration;

use cloude_e2e::backend::Backend;
use cloude_protocol::api::{ExecutionRequest, StartChoice, StartKind};

use crate::bare::Bare;
use crate::hello::{self, Client, Hello};
use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// Pause between two requests, in which the pool refills. `sustained` and `waiting` measure without pauses.
const PAUSE: Duration = Duration::from_millis(300);
/// Samples of a fork for each sample of a cold boot.
const FORKS_A_RUN: usize = 10;
/// Samples of a bare process for each sample of a cold boot.
const BARE_A_RUN: usize = 5;

/// Alternates executions from the pool, cold boots and the bare interpreter.
pub fn measure(report: &mut Report, backend: &Backend, client: &Client, hello: &Hello) {
    let language = hello.language;
    let plain = hello::request(language, hello.code);
    let cold = ExecutionRequest {
        start: Some(StartChoice::Cold),
        ..plain.clone()
    };
    let bare = Bare::new(language);
    bare.time(&hello.bare);
    hello::warm_up(client, &plain);

    let mut times = Times::default();
    for _ in 0..report.runs {
        for index in 0..FORKS_A_RUN {
            std::thread::sleep(PAUSE);
            times.fork(client, &plain);
            if index % (FORKS_A_RUN / BARE_A_RUN) == 0 {
                // The pool has refilled by then, and the host is idle.
                std::thread::sleep(PAUSE);
                times.bare.0.push(bare.time(&hello.bare));
            }
        }
        times.cold.0.push(client.run(&cold).1);
    }
    times.rows(report, language);
    times.parts(report, language);
    faults(report, backend, language);
}

#[derive(Default)]
struct Times {
    pool: Samples,
    /// Executions that found the pool empty, so that a fork was made for them.
    missed: Samples,
    cold: Samples,
    bare: Samples,
    /// The phases of an execution in a fork (`timings` of the response); `rest` is the remainder.
    queue: Samples,
    start: Samples,
    identity: Samples,
    run: Samples,
    rest: Samples,
}

impl Times {
    fn fork(&mut self, client: &Client, request: &ExecutionRequest) {
        let (execution, elapsed) = client.run(request);
        if execution.start != StartKind::Pool {
            self.missed.0.push(elapsed);
            return;
        }
        self.pool.0.push(elapsed);
        let timings = execution.timings;
        let ms = |us: u64| us as f64 / 1e3;
        self.queue.0.push(ms(timings.queue_us));
        self.identity.0.push(ms(timings.identity_us));
        self.start.0.push(ms(timings.start_us));
        self.run.0.push(ms(timings.run_us));
        let known = timings.queue_us + timings.start_us + timings.identity_us + timings.run_us;
        self.rest.0.push(elapsed - ms(known));
    }

    fn rows(&self, report: &mut Report, language: &str) {
        let (pool, bare, cold) = (self.pool.median(), self.bare.median(), self.cold.median());
        let (p95, p99) = (self.pool.percentile(95.0), self.pool.percentile(99.0));
        let measured = format!("{pool:.1} ms, p95 {p95:.1}, p99 {p99:.1}");
        let row = Row::new(
            format!("{language} hello from the pool / bare interpreter"),
            measured.clone(),
            pool / bare,
        );
        report.push(
            row.against(format!("{bare:.1} ms"))
                .promised(Threshold::AtMost(0.6))
                .samples("pool", &self.pool)
                .samples("fork made for the request", &self.missed)
                .samples("bare", &self.bare),
        );
        let row = Row::new(
            format!("{language} hello from the pool: times as fast as a cold boot"),
            measured,
            cold / pool,
        );
        report.push(
            row.against(format!("{cold:.0} ms"))
                .samples("cold", &self.cold),
        );
        let row = Row::new(
            format!("{language} hello from the pool: p99 / p50"),
            format!("{p99:.1} ms"),
            p99 / pool,
        );
        let missed = self.missed.0.len();
        report.push(
            row.against(format!("{pool:.1} ms; {missed} found no fork"))
                .promised(Threshold::AtMost(3.0)),
        );
    }

    fn parts(&self, report: &mut Report, language: &str) {
        let median = |samples: &Samples| samples.median();
        let text = format!(
            "queue {:.2}, start {:.2}, identity {:.2}, run {:.2}, rest {:.2} ms",
            median(&self.queue),
            median(&self.start),
            median(&self.identity),
            median(&self.run),
            median(&self.rest)
        );
        let row = Row::new(
            format!("{language} hello from the pool: where the time goes"),
            text,
            0.0,
        );
        report.push(
            row.samples("queue", &self.queue)
                .samples("start", &self.start)
                .samples("identity", &self.identity)
                .samples("run", &self.run)
                .samples("rest", &self.rest),
        );
    }
}

/// ioctls, page faults and time of each restore. The workers count them, and `clouded` logs them.
fn faults(report: &mut Report, backend: &Backend, language: &str) {
    let log = backend.log();
    let column = |name: &str| Samples::of_forks(&log, name);
    let (ioctls, faults, micros) = (
        column("ioctls"),
        column("minor_faults"),
        column("restore_us"),
    );
    if ioctls.0.is_empty() {
        return;
    }
    let row = Row::new(
        format!("restoring a fork ({language} and before)"),
        format!(
            "{:.0} ioctls, {:.0} page faults, {:.2} ms",
            ioctls.median(),
            faults.median(),
            micros.median() / 1e3
        ),
        0.0,
    );
    report.push(
        row.samples("ioctls", &ioctls)
            .samples("minor faults", &faults)
            .samples("restore, µs", &micros),
    );
}
