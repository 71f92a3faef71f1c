//! The metrics of `GET /metrics`. The number of label values is limited: languages and templates of this server, start
//! kinds and causes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cloude_engine::PoolCounts;
use cloude_protocol::api::{Execution, TemplateInfo, TemplateState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use crate::bounds::Bounds;
use crate::config;
use crate::scheduler::Load;

/// Media type of [`Metrics::text`] (OpenMetrics 1.0, "Protocol negotiation").
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Length of the label of a template, in hexadecimal digits of its id.
const SHORT: usize = 12;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    language: String,
    start: String,
    cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStart {
    start: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTemplate {
    template: String,
    language: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: String,
}

type Times = Family<ByStart, Histogram, fn() -> Histogram>;

/// Buckets from 0.5 ms to 262 s, each twice the one before.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 20))
}

/// Counters since the start, and values that are set at each scrape.
pub struct Metrics {
    registry: Registry,
    executions: Family<Ended, Counter>,
    queue: Histogram,
    start: Times,
    identity: Histogram,
    total: Times,
    values: ScrapeValues,
    bounds: Bounds,
    /// Held while a scrape sets the values and encodes them.
    scrape: Mutex<()>,
}

/// Values that are set at each scrape.
#[derive(Default)]
struct ScrapeValues {
    waiting: Gauge,
    running: Gauge,
    vcpus: Gauge,
    memory: Gauge,
    for_image: Gauge,
    unwritten: Gauge,
    templates: Family<ByResult, Gauge>,
    pool_forks: Family<ByTemplate, Gauge>,
    shared: Family<ByTemplate, Gauge>,
    private: Family<ByTemplate, Gauge>,
    builds: Family<ByResult, Counter>,
    failed_forks: Counter,
}

/// The name of an enum value in JSON.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "unknown".to_owned(),
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn raise(counter: &Counter<u64, AtomicU64>, to: u64) {
    counter.inner().fetch_max(to, Ordering::Relaxed);
}

impl Metrics {
    /// All counters are zero.
    pub fn new(pool: &config::Pool) -> Self {
        let metrics = Metrics {
            registry: Registry::with_prefix("cloude"),
            executions: Family::default(),
            queue: times(),
            start: Family::new_with_constructor(times as fn() -> Histogram),
            identity: times(),
            total: Family::new_with_constructor(times as fn() -> Histogram),
            values: ScrapeValues::default(),
            bounds: Bounds::default(),
            scrape: Mutex::default(),
        };
        metrics.registered(pool)
    }

    fn registered(mut self, pool: &config::Pool) -> Self {
        let registry = &mut self.registry;
        let executions = self.executions.clone();
        registry.register("executions", "Executions that ended", executions);
        let seconds = || Unit::Seconds;
        let help = "From the arrival of a request to its VM permit";
        registry.register_with_unit("queue", help, seconds(), self.queue.clone());
        let help =
            "From the VM permit until the VM was ready: booted, forked or taken from the pool";
        registry.register_with_unit("start", help, seconds(), self.start.clone());
        let help = "From a ready fork until it acknowledged its identity";
        registry.register_with_unit("identity", help, seconds(), self.identity.clone());
        let help = "From the arrival of a request to its result";
        registry.register_with_unit("execution", help, seconds(), self.total.clone());
        self.bounds.register(registry);
        let values = &self.values;
        registry.register(
            "queue_length",
            "Executions that wait for a VM",
            values.waiting.clone(),
        );
        let help = "Executions that wait for their image to be built";
        registry.register("image_waiters", help, values.for_image.clone());
        let help = "Writes to the job store that failed and are retried";
        registry.register("store_unwritten", help, values.unwritten.clone());
        registry.register("vms", "VMs that run executions", values.running.clone());
        registry.register(
            "vms_vcpus",
            "vCPUs of the VMs that run executions",
            values.vcpus.clone(),
        );
        let (bytes, help) = (
            || Unit::Bytes,
            "Memory that the VMs that run executions may use",
        );
        registry.register_with_unit("vms_memory", help, bytes(), values.memory.clone());
        registry.register("templates", "Templates, by state", values.templates.clone());
        let help = "Paused forks in the pool";
        registry.register("pool_forks", help, values.pool_forks.clone());
        let help = "Memory of a template, shared by all its forks";
        registry.register_with_unit("template_memory", help, bytes(), values.shared.clone());
        let help = "Private memory of the paused forks of a template";
        registry.register_with_unit("pool_memory", help, bytes(), values.private.clone());
        let help = "Templates that were built, loaded from the disk, failed, or dropped because their forks failed";
        registry.register("template_builds", help, values.builds.clone());
        let help = "Forks that failed before their program began";
        registry.register("forks_failed", help, values.failed_forks.clone());
        let fixed = |value: u64| {
            let fixed: Gauge = Gauge::default();
            fixed.set(gauge(value));
            fixed
        };
        let help = "Minimum paused forks of a template in use (pool.floor)";
        registry.register("pool_floor", help, fixed(pool.floor as u64));
        let help = "Maximum paused forks of a template (pool.ceiling)";
        registry.register("pool_ceiling", help, fixed(pool.ceiling as u64));
        let help = "Maximum private memory of all paused forks (pool.memory_mib)";
        let budget = fixed(pool.memory_mib.saturating_mul(1 << 20));
        registry.register_with_unit("pool_memory_budget", help, bytes(), budget);
        self
    }

    /// The counters of limits that were reached.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Counts a finished execution.
    pub fn executed(&self, execution: &Execution) {
        let start = name(&execution.start);
        let seconds = |us: u64| us as f64 / 1e6;
        let timings = &execution.timings;
        self.queue.observe(seconds(timings.queue_us));
        let by_start = ByStart {
            start: start.clone(),
        };
        // 0 if the execution had no VM.
        if timings.start_us > 0 {
            let family = self.start.get_or_create(&by_start);
            family.observe(seconds(timings.start_us));
        }
        if timings.identity_us > 0 {
            self.identity.observe(seconds(timings.identity_us));
        }
        let family = self.total.get_or_create(&by_start);
        family.observe(seconds(timings.total_us));
        drop(family);
        let ended = Ended {
            language: execution.language.clone(),
            start,
            cause: name(&execution.cause),
        };
        self.executions.get_or_create(&ended).inc();
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(
        &self,
        load: Load,
        unwritten: usize,
        templates: &[TemplateInfo],
        counts: PoolCounts,
    ) -> String {
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.values.unwritten.set(gauge(unwritten as u64));
        self.values.set(load, templates, counts);
        let mut text = String::new();
        // Writing to a String does not fail. Metrics after a failure would be missing.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "encoding the metrics");
        }
        text
    }
}

impl ScrapeValues {
    fn set(&self, load: Load, templates: &[TemplateInfo], counts: PoolCounts) {
        self.waiting.set(gauge(load.waiting as u64));
        self.running.set(gauge(load.running as u64));
        self.for_image.set(gauge(load.for_image as u64));
        self.vcpus.set(gauge(load.vcpus as u64));
        self.memory.set(gauge(load.memory_mib << 20));
        for family in [&self.pool_forks, &self.shared, &self.private] {
            family.clear();
        }
        for state in [
            TemplateState::Building,
            TemplateState::Ready,
            TemplateState::Failed,
        ] {
            let count = templates.iter().filter(|info| info.state == state).count();
            let result = name(&state);
            let by = ByResult { result };
            self.templates.get_or_create(&by).set(gauge(count as u64));
        }
        for info in templates {
            let by = ByTemplate {
                template: info.id.chars().take(SHORT).collect(),
                language: info.language.clone(),
            };
            let waiting = info.waiting as u64;
            let private = waiting * info.fork_kib.unwrap_or(0) * 1024;
            self.pool_forks.get_or_create(&by).set(gauge(waiting));
            self.shared.get_or_create(&by).set(gauge(info.memory_bytes));
            self.private.get_or_create(&by).set(gauge(private));
        }
        for (result, count) in [
            ("built", counts.built),
            ("loaded", counts.loaded),
            ("failed", counts.failed_builds),
            ("given_up", counts.given_up),
        ] {
            let result = result.to_owned();
            raise(&self.builds.get_or_create(&ByResult { result }), count);
        }
        raise(&self.failed_forks, counts.failed_forks);
    }
}
