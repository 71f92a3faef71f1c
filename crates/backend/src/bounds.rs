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
}

/// Bytes that a gauge counts until this is dropped.
#[derive(Debug)]
pub struct Counted {
    gauge: Gauge,
    bytes: i64,
}

impl Counted {
    fn new(gauge: &Gauge, bytes: usize) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        gauge.inc_by(bytes);
        Counted {
            gauge: gauge.clone(),
            bytes,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.bytes);
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

    /// Adds the counters to the registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests that were refused and connections that were closed because of a limit";
        registry.register("rejected", help, self.rejected.clone());
        let help = "Memory reserved for request bodies that are being received";
        registry.register_with_unit("request_bodies", help, Unit::Bytes, self.body_bytes.clone());
    }
}
