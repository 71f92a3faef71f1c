//! `cloude-vmm cpuid`.

use std::path::Path;
use std::process::ExitCode;

use cloude_vmm::arch::x86_64::cpuid::{leaf, recorded, report};
use cloude_vmm::probe::open_kvm;

use super::{CpuidArgs, exit_code};

pub fn main(args: &CpuidArgs) -> ExitCode {
    match print(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("cloude-vmm: {message}");
            ExitCode::from(code)
        }
    }
}

fn print(args: &CpuidArgs) -> Result<(), (u8, String)> {
    if args.files.is_empty() {
        let supported = supported().map_err(|error| (exit_code::UNAVAILABLE, error))?;
        let brand = recorded::brand(&supported);
        match args.raw {
            true => print!("{}", recorded::write(&brand, &supported)),
            false => print!("{}", report(&brand, &supported)),
        }
    }
    for file in &args.files {
        let recorded = read(file).map_err(|error| {
            let message = format!("{}: {error}", file.display());
            (exit_code::NO_INPUT, message)
        })?;
        let supported = recorded::with_kvm_features(&recorded.leaves);
        print!("{}", report(&recorded.name, &supported));
    }
    Ok(())
}

fn supported() -> Result<Vec<leaf::Leaf>, String> {
    let kvm = open_kvm()?;
    leaf::supported(&kvm).map_err(|error| format!("KVM_GET_SUPPORTED_CPUID failed: {error}"))
}

fn read(file: &Path) -> Result<recorded::Recorded, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    recorded::parse(&text)
}
