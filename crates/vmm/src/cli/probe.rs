//! `cloude-vmm probe`.

use std::process::ExitCode;

use cloude_vmm::probe::{KvmKind, kvm_kind};

use super::ProbeArgs;

pub fn main(args: &ProbeArgs) -> ExitCode {
    let kind = kvm_kind();
    if args.json {
        println!("{}", serde_json::to_string(&kind).unwrap_or_default());
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
