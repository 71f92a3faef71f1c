//! Forks of warm templates: latency, throughput and cost of executions through the HTTP API.

use cloude_e2e::backend::Backend;

use crate::hello::{Client, HELLOS};
use crate::report::Report;
use crate::{cost, latency, sustained, waiting};

pub fn measure(report: &mut Report) {
    let backend = Backend::start(
        "vm.max_concurrent = 4\npool.floor = 4\npool.ceiling = 8\npool.disk = \"off\"",
    );
    let client = Client::new(&backend);
    for hello in &HELLOS {
        latency::measure(report, &backend, &client, hello);
    }
    sustained::measure(report, &backend, &HELLOS[0]);
    cost::measure(report, &backend, &HELLOS[0]);
    backend.stop();
    waiting::measure(report, &HELLOS[0]);
}
