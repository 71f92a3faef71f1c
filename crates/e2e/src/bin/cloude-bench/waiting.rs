//! A pool with hundreds of paused forks: memory of each, and executions that use all of them.

use std::time::Instant;

use cloude_e2e::backend::Backend;
use cloude_e2e::host;
use cloude_protocol::api::{ExecutionRequest, StartKind};

use crate::hello::{self, Client, Hello};
use crate::memory::{self, Worker};
use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// Default number of paused forks; `CLOUDE_BENCH_FORKS` overrides it.
const MANY: usize = 500;

/// Fills the pool, measures the private memory of the forks, then executes one program in each.
pub fn measure(report: &mut Report, hello: &Hello) {
    let count = std::env::var("CLOUDE_BENCH_FORKS").map_or(MANY, |text| text.parse().unwrap());
    let backend = Backend::start(&format!(
        "vm.max_concurrent = 4\npool.floor = {count}\npool.ceiling = {count}\npool.memory_mib = 16384\npool.disk = \"off\""
    ));
    let client = Client::new(&backend);
    let hello = hello::request(hello.language, "import sys; print(int(sys.argv[1]) * 2)");
    let ask = |number: usize| {
        let request = ExecutionRequest {
            args: vec![number.to_string()],
            ..hello.clone()
        };
        let (execution, elapsed) = client.run(&request);
        assert_eq!(execution.stdout.to_text(), format!("{}\n", 2 * number));
        (execution.start, elapsed)
    };
    ask(0);
    let free = memory::available_mib();
    let start = Instant::now();
    let paused = host::wait_for("the pool is full", || {
        let workers = memory::workers(backend.id());
        (workers.len() >= count).then_some(workers)
    });
    let filled = start.elapsed().as_secs_f64();
    let taken = free - memory::available_mib();
    let private = Samples(paused.iter().filter_map(Worker::private_mib).collect());
    let row = Row::new(
        format!("{count} forks wait at once"),
        format!("{:.2} MiB of private memory each", private.median()),
        private.median(),
    );
    report.push(
        row.against(format!(
            "{:.2} MiB of the host's each, filled in {filled:.0} s",
            taken / count as f64
        ))
        .samples("private", &private),
    );

    let mut times = Samples::default();
    let mut from_pool = 0;
    for number in 0..count {
        let (start, elapsed) = ask(number);
        from_pool += usize::from(start == StartKind::Pool);
        times.0.push(elapsed);
    }
    let row = Row::new(
        format!("of {count} executions, those that found one of them"),
        format!("{from_pool}, in {:.1} ms each", times.median()),
        from_pool as f64 / count as f64,
    );
    report.push(
        row.promised(Threshold::AtLeast(1.0))
            .samples("answers", &times),
    );
    backend.stop();
}
