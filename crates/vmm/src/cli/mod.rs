//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cloude_vmm::control::CpuBaseline;

pub mod cpuid;
pub mod exit_code;
pub mod net;
pub mod probe;
pub mod run;
pub mod terminal;

/// One process, one micro-VM.
#[derive(Parser)]
#[command(name = "cloude-vmm", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Boot a VM and run it until it ends
    #[command(after_help = exit_code::HELP)]
    Run(RunArgs),
    /// Print the kind of this host's KVM: hardware, pvm or none
    ///
    /// The exit code is 0 for hardware, 1 for pvm and 2 for none.
    Probe(ProbeArgs),
    /// Print the CPU model that guests see with each baseline, and the features hidden from them
    ///
    /// A snapshot can be restored on every host that prints the same key for its baseline.
    Cpuid(CpuidArgs),
    /// Serve one VM over the control socket that is descriptor 3 (started by clouded)
    #[command(hide = true)]
    Worker {
        /// The walls of the worker's jail, separated by commas
        #[arg(default_value = "")]
        walls: String,
    },
}

#[derive(Args)]
pub struct ProbeArgs {
    /// Print JSON, with the reason and KVM's capabilities
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct CpuidArgs {
    /// CPUID tables of other processors, in the format of --raw; the default is this host's KVM
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print the CPUID leaves that KVM supports on this host, one per line
    #[arg(long, conflicts_with = "files")]
    pub raw: bool,
}

#[derive(Args)]
pub struct RunArgs {
    /// An ELF vmlinux with a PVH note, a bzImage, or a folder with a `vmlinux`
    #[arg(long, short, value_name = "PATH", env = "VM_KERNEL_PATH")]
    pub kernel: PathBuf,
    /// An initramfs; several are concatenated in order
    #[arg(long, short, value_name = "FILE")]
    pub initramfs: Vec<PathBuf>,
    /// Number of vCPUs, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u8,
    /// Guest memory in MiB, or with a suffix: 512M, 2G
    #[arg(long, short, value_name = "SIZE", default_value = "512M", value_parser = parse_memory)]
    pub memory: u64,
    /// The CPU features that the guest sees: host, x86-64-v2 or x86-64-v3
    #[arg(long, value_name = "BASELINE", default_value_t = CpuBaseline::Host)]
    pub cpu_baseline: CpuBaseline,
    /// A TAP for the guest's network; it is created if it does not exist
    #[arg(long, value_name = "NAME")]
    pub tap: Option<String>,
    /// The guest's address, ADDRESS/PREFIX[,GATEWAY], for the agent (`cloude.ip=`)
    #[arg(long, value_name = "ADDRESS", requires = "tap", value_parser = net::parse_address)]
    pub ip: Option<String>,
    /// The guest's MAC address; the default is derived from the TAP's name
    #[arg(long, requires = "tap", value_parser = net::parse_mac)]
    pub mac: Option<net::Mac>,
    /// Connect this terminal, or standard input, to the guest's console. Ctrl-A x ends the VM,
    /// Ctrl-A a types a Ctrl-A
    #[arg(long, short)]
    pub console: bool,
    /// The first program, instead of the initramfs's /init (`rdinit=`)
    #[arg(long, value_name = "PATH")]
    pub init: Option<String>,
    /// Text to append to the kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cmdline: String,
    /// Show the kernel's messages
    #[arg(long, short)]
    pub verbose: bool,
}

/// Parses a size into MiB.
fn parse_memory(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['M', 'm']) {
        Some(digits) => (digits, 1),
        None => match text.strip_suffix(['G', 'g']) {
            Some(digits) => (digits, 1024),
            None => (text, 1),
        },
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .ok_or_else(|| "expected MiB, such as 512, 512M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn memory_without_a_suffix_is_in_mib() {
        assert_eq!(parse_memory("512"), Ok(512));
        assert_eq!(parse_memory("512M"), Ok(512));
        assert_eq!(parse_memory("2G"), Ok(2048));
        for bad in ["", "M", "-1", "1.5G", "1T", "99999999999999999999G"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
    }
}
