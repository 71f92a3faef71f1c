//! `cloude-vmm probe`.

use std::process::ExitCode;

use cloude_vmm::capabilities::{self, Capability};
use cloude_vmm::probe::{KvmKind, kvm_kind, open_kvm};
use serde::Serialize;

use super::ProbeArgs;

/// The output of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    kind: &'a KvmKind,
    /// Empty without /dev/kvm.
    capabilities: Vec<Present>,
}

#[derive(Serialize)]
struct Present {
    #[serde(flatten)]
    capability: Capability,
    present: bool,
}

pub fn main(args: &ProbeArgs) -> ExitCode {
    let kind = kvm_kind();
    if args.json {
        let report = Report {
            kind: &kind,
            capabilities: capabilities(),
        };
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        println!("{kind}");
    }
    if let (false, KvmKind::Pvm { reason } | KvmKind::None { reason }) = (args.json, &kind) {
        eprintln!("cloude-vmm: {reason}");
    }
    ExitCode::from(match kind {
        KvmKind::Hardware => 0,
        KvmKind::Pvm { .. } => 1,
        KvmKind::None { .. } => 2,
    })
}

fn capabilities() -> Vec<Present> {
    let Ok(kvm) = open_kvm() else {
        return Vec::new();
    };
    let present = |(capability, present)| Present {
        capability,
        present,
    };
    capabilities::list(&kvm).into_iter().map(present).collect()
}
