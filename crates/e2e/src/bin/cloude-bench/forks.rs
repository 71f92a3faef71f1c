//! Forks of warm templates, from the HTTP request to the whole answer, and what they leave behind.

use std::time::{Duration, Instant};

use cloude_e2e::backend::Backend;
use cloude_e2e::host;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionRequest, StartChoice, StartKind};

use crate::bare::Bare;
use crate::memory::{self, Worker};
use crate::report::{Report, Row, Threshold};
use crate::sample::Samples;

/// Between two requests, so that the pool is never empty: what it does then is measured apart.
const PAUSE: Duration = Duration::from_millis(300);
/// Samples of a fork for each of anything slower.
const FORKS_A_RUN: usize = 10;
/// Samples of a bare process for each of a boot.
const BARE_A_RUN: usize = 5;
/// How long requests are sent without a pause.
const SUSTAINED: Duration = Duration::from_secs(20);
/// The same for VMs that are booted, of which few fit into that time.
const SUSTAINED_COLD: Duration = Duration::from_secs(60);
/// A template is built, or a pool filled, within so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Paused at once. `CLOUDE_BENCH_FORKS` says how many.
const MANY: usize = 500;

/// A language with a program that says hello.
struct Hello {
    language: &'static str,
    code: &'static str,
    /// A plain process that does the same, without the language's file.
    bare: [&'static str; 3],
}

const HELLOS: [Hello; 2] = [
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
struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    fn new(backend: &Backend) -> Self {
        Client {
            agent: ureq::Agent::new_with_defaults(),
            url: format!("{}/v1/executions", backend.url()),
        }
    }

    /// The result, and the milliseconds from the request to the whole of it. Anything but success ends
    /// the benchmark.
    fn run(&self, request: &ExecutionRequest) -> (Execution, f64) {
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

fn request(language: &str, code: &str) -> ExecutionRequest {
    ExecutionRequest {
        language: language.to_owned(),
        code: code.to_owned(),
        ..ExecutionRequest::default()
    }
}

/// Until an execution finds a fork that waited for it.
fn warm_up(client: &Client, request: &ExecutionRequest) {
    host::wait_for("a fork waits in the pool", PATIENCE, || {
        let (execution, _) = client.run(request);
        (execution.start == StartKind::Pool).then_some(())
    });
}

pub fn measure(report: &mut Report) {
    let backend = Backend::start(
        "vm.max_concurrent = 4\npool.floor = 4\npool.ceiling = 8\npool.disk = \"off\"",
    );
    let client = Client::new(&backend);
    for hello in &HELLOS {
        latency(report, &backend, &client, hello);
    }
    sustained(report, &backend, &HELLOS[0]);
    footprint(report, &backend, &HELLOS[0]);
    backend.stop();
    many(report, &HELLOS[0]);
}

/// Pool, cold and the bare interpreter, in turns.
fn latency(report: &mut Report, backend: &Backend, client: &Client, hello: &Hello) {
    let language = hello.language;
    let plain = request(language, hello.code);
    let cold = ExecutionRequest {
        start: Some(StartChoice::Cold),
        ..plain.clone()
    };
    let bare = Bare::new(language);
    bare.time(&hello.bare);
    warm_up(client, &plain);

    let mut times = Times::default();
    for _ in 0..report.runs {
        for index in 0..FORKS_A_RUN {
            std::thread::sleep(PAUSE);
            times.fork(client, &plain);
            if index % (FORKS_A_RUN / BARE_A_RUN) == 0 {
                // Nothing else goes on by then.
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
    /// Forks that were made for the request, since none waited.
    missed: Samples,
    cold: Samples,
    bare: Samples,
    /// Where the time of a fork's execution went.
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
                .promised(Threshold::AtMost(0.3))
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
                .promised(Threshold::AtLeast(30.0))
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

/// What restoring a fork took, as the workers counted it: `clouded` logs it.
fn faults(report: &mut Report, backend: &Backend, language: &str) {
    let log = backend.log();
    let column = |name: &str| {
        let values = log.lines().filter(|line| line.contains("a fork was made"));
        let field = format!("{name}=");
        Samples(
            values
                .filter_map(|line| {
                    line.split(&field)
                        .nth(1)?
                        .split_whitespace()
                        .next()?
                        .parse()
                        .ok()
                })
                .collect(),
        )
    };
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

/// As many clients as there are processors, each with the next request as soon as it has an answer.
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

fn sustained(report: &mut Report, backend: &Backend, hello: &Hello) {
    let plain = request(hello.language, hello.code);
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
    report.push(
        row.against(format!("{boots:.2} a second"))
            .promised(Threshold::AtLeast(10.0)),
    );
}

/// A paused fork's private memory, and that of one that has said hello.
fn footprint(report: &mut Report, backend: &Backend, hello: &Hello) {
    std::thread::sleep(Duration::from_secs(5));
    let paused = Samples(
        memory::workers(backend.id())
            .iter()
            .filter_map(Worker::private_mib)
            .collect(),
    );
    memory_row(
        report,
        "a paused fork's private memory",
        1.0,
        ("paused", &paused),
    );

    let lingering = format!("{}\nimport time\ntime.sleep(3)", hello.code);
    let lingering = request(hello.language, &lingering);
    let mut used = Vec::new();
    for _ in 0..report.runs {
        std::thread::sleep(Duration::from_secs(1));
        let before = memory::workers(backend.id());
        let waited: Vec<_> = before.iter().map(Counts::of).collect();
        let counts = std::thread::scope(|scope| {
            let execution = scope.spawn(|| Client::new(backend).run(&lingering));
            std::thread::sleep(Duration::from_millis(1500));
            let measured: Vec<_> = before.iter().map(Counts::of).collect();
            execution.join().unwrap();
            // Those that waited still do.
            let ended = host::wait_for("the fork that ran is gone", PATIENCE, || {
                before.iter().position(Worker::has_ended)
            });
            measured[ended].since(&waited[ended])
        });
        used.push(counts);
    }
    used_rows(report, &used);
}

/// A row of memory in MiB, of which there may be so much.
fn memory_row(report: &mut Report, name: &str, at_most: f64, samples: (&str, &Samples)) {
    let (label, samples) = samples;
    let median = samples.median();
    let row = Row::new(name, format!("{median:.2} MiB"), median);
    report.push(
        row.promised(Threshold::AtMost(at_most))
            .samples(label, samples),
    );
}

/// What one fork takes of the host.
#[derive(Clone, Copy)]
struct Counts {
    private_mib: f64,
    exits: f64,
    mapped: f64,
    halts: f64,
    mmio: f64,
    faults: f64,
}

impl Counts {
    fn of(worker: &Worker) -> Self {
        let counted = |name: &str| worker.counted(name).unwrap_or(f64::NAN);
        Counts {
            private_mib: worker.private_mib().unwrap_or(f64::NAN),
            exits: counted("exits"),
            mapped: counted("pf_fixed"),
            halts: counted("halt_exits"),
            mmio: counted("mmio_exits"),
            faults: worker.minor_faults().unwrap_or(f64::NAN),
        }
    }

    /// What was counted since, and the memory that there is now.
    fn since(self, before: &Counts) -> Self {
        Counts {
            private_mib: self.private_mib,
            exits: self.exits - before.exits,
            mapped: self.mapped - before.mapped,
            halts: self.halts - before.halts,
            mmio: self.mmio - before.mmio,
            faults: self.faults - before.faults,
        }
    }
}

fn used_rows(report: &mut Report, used: &[Counts]) {
    let samples = |of: fn(&Counts) -> f64| Samples(used.iter().map(of).collect());
    let private = samples(|counts| counts.private_mib);
    memory_row(
        report,
        "a fork's private memory after a hello",
        4.0,
        ("after a hello", &private),
    );
    // Without debugfs nobody has counted.
    if used.iter().any(|counts| counts.exits.is_nan()) {
        return;
    }
    let (exits, halts) = (
        samples(|counts| counts.exits),
        samples(|counts| counts.halts),
    );
    let (mmio, mapped) = (
        samples(|counts| counts.mmio),
        samples(|counts| counts.mapped),
    );
    let faults = samples(|counts| counts.faults);
    let row = Row::new(
        "what a fork's hello takes of the host",
        format!(
            "{:.0} VM exits, {:.0} of them halts, {:.0} to devices; {:.0} pages mapped for it; {:.0} page faults",
            exits.median(),
            halts.median(),
            mmio.median(),
            mapped.median(),
            faults.median()
        ),
        0.0,
    );
    report.push(
        row.samples("VM exits", &exits)
            .samples("halts", &halts)
            .samples("to devices", &mmio)
            .samples("pages mapped", &mapped)
            .samples("page faults", &faults),
    );
}

/// Many that wait at once; then each of them answers.
fn many(report: &mut Report, hello: &Hello) {
    let count = std::env::var("CLOUDE_BENCH_FORKS").map_or(MANY, |text| text.parse().unwrap());
    let backend = Backend::start(&format!(
        "vm.max_concurrent = 4\npool.floor = {count}\npool.ceiling = {count}\npool.memory_mib = 16384\npool.disk = \"off\""
    ));
    let client = Client::new(&backend);
    let hello = request(hello.language, "import sys; print(int(sys.argv[1]) * 2)");
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
    let paused = host::wait_for("the pool is full", 4 * PATIENCE, || {
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
