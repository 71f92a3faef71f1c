//! Eight concurrent executions, compared with a single one.

use std::process::Child;
use std::time::Instant;

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude;
use cloude_protocol::agent::Cause;

use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

const AT_ONCE: usize = 8;
/// Cold boots, because `forks` measures forks.
const OPTIONS: [&str; 4] = ["--memory", "256", "--start", "cold"];
/// Allowed time relative to perfect scaling, 8 / cores of one execution. Perfect scaling is out of reach: a single
/// execution already uses several cores, for the threads of its VM and of `clouded`.
const ALLOWANCE: f64 = 1.25;

pub fn measure(report: &mut Report) {
    let backend = Backend::start("vm.max_concurrent = 8\nvm.memory_budget_mib = 2048");
    let cores = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(AT_ONCE);
    together(&backend, 1);
    let (mut one, mut eight) = (Samples::default(), Samples::default());
    for _ in 0..report.runs {
        one.0.push(together(&backend, 1));
        eight.0.push(together(&backend, AT_ONCE));
    }
    backend.stop();
    let allowed = one.median() * AT_ONCE as f64 / cores as f64;
    let row = Row::new(
        format!("{AT_ONCE} executions at once, {cores} cores"),
        format!("{:.0} ms", eight.median()),
        eight.median() / allowed,
    );
    let row = row.against(format!("{AT_ONCE}/{cores} of one, {allowed:.0} ms"));
    report.push(
        row.promised(Threshold::AtMost(ALLOWANCE))
            .samples("one", &one)
            .samples("eight", &eight),
    );
}

/// Starts `count` executions at once and returns the milliseconds until the last one ends. Panics if one fails.
fn together(backend: &Backend, count: usize) -> f64 {
    let start = Instant::now();
    let children: Vec<Child> = (0..count)
        .map(|number| cloude::start_bash(backend, &OPTIONS, &format!("echo {number}")))
        .collect();
    let outputs: Vec<_> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let elapsed = start.elapsed();
    for (number, output) in outputs.iter().enumerate() {
        let execution = cloude::execution(output);
        assert_eq!(
            (execution.cause, execution.exit_code),
            (Cause::Exit, Some(0)),
            "{execution:?}"
        );
        assert_eq!(execution.stdout.to_text(), format!("{number}\n"));
    }
    elapsed.as_secs_f64() * 1e3
}
