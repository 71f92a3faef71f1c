//! The device's report of dropped frames, as results show it.

use cloude_protocol::network::{Denied, DenyReason, NetworkReport};
use cloude_vmm::control::{self, DeniedCount, DeniedReport};

/// Translates the worker's report.
pub fn network_report(report: DeniedReport) -> NetworkReport {
    NetworkReport {
        denied: report.counts.into_iter().map(denied).collect(),
        denied_others: report.others,
    }
}

fn denied(DeniedCount { denial, times }: DeniedCount) -> Denied {
    Denied {
        address: denial.address,
        port: denial.port,
        protocol: denial.protocol.to_string(),
        reason: match denial.reason {
            control::DenyReason::Destination => DenyReason::Destination,
            control::DenyReason::Port => DenyReason::Port,
            control::DenyReason::Rate => DenyReason::Rate,
            control::DenyReason::Source => DenyReason::Source,
            control::DenyReason::Protocol => DenyReason::Protocol,
            control::DenyReason::Malformed => DenyReason::Malformed,
        },
        times,
    }
}
