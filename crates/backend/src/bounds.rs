//! Counters of the limits that protect the server from its clients. docs/metrics.md has their names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
}

/// Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    rejected: Family<ByReason, Counter>,
    body_bytes: Gauge,
    pinned_bytes: Gauge,
    connections: Gauge,
}

/// An amount that a gauge counts until this is dropped.
#[derive(Debug)]
pub struct Counted {
    gauge: Gauge,
    amount: i64,
}

impl Counted {
    fn new(gauge: &Gauge, amount: usize) -> Self {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        gauge.inc_by(amount);
        Counted {
            gauge: gauge.clone(),
            amount,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.amount);
    }
}

impl Bounds {
    /// Counts a request or connection that was refused or ended. `reason`: one of the table in docs/metrics.md.
    pub fn rejected(&self, reason: &'static str) {
        let reason = reason.to_owned();
        self.rejected.get_or_create(&ByReason { reason }).inc();
    }

    /// Counts the bytes reserved for a request body.
    pub fn body(&self, bytes: usize) -> Counted {
        Counted::new(&self.body_bytes, bytes)
    }

    /// Sets the bytes of finished output that responses hold.
    pub fn pinned(&self, bytes: usize) {
        self.pinned_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a connection.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.connections, 1)
    }

    /// Adds the counters to the registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests that were refused and connections that were closed because of a limit";
        registry.register("rejected", help, self.rejected.clone());
        let help = "Memory reserved for request bodies that are being received";
        registry.register_with_unit("request_bodies", help, Unit::Bytes, self.body_bytes.clone());
        let help = "Finished output that responses hold in memory";
        registry.register_with_unit(
            "pinned_output",
            help,
            Unit::Bytes,
            self.pinned_bytes.clone(),
        );
        let help = "Open connections";
        registry.register("connections", help, self.connections.clone());
    }
}
