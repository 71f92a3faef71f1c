//! `clouded`: reads its configuration and serves.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloude_backend::config::{self, Config, ConfigError, Transport};
use cloude_backend::server;
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

/// Runs code in fresh micro-VMs, over HTTP.
///
/// Configuration: a TOML file, over it environment variables (BACKEND_SERVER_ADDR, VM_KERNEL_PATH, …),
/// over those the flags. See docs/configuration.md.
#[derive(Parser)]
#[command(name = "clouded", version)]
struct Arguments {
    /// A TOML file [default: /etc/cloude/clouded.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// How the backend reaches the agents: vsock or ip
    #[arg(long)]
    transport: Option<Transport>,
    /// Where the job store and the lock lie
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The folder of language files
    #[arg(long, value_name = "DIR")]
    languages: Option<PathBuf>,
    /// A kernel folder, or a bare kernel
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// The folder of initramfs images
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The cloude-vmm binary
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// The agent's binary
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// VMs at once
    #[arg(long, value_name = "N")]
    max_concurrent: Option<usize>,
    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Print the configuration that would be used, check it, and end
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Arguments {
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref())?;
        config::apply_env(&mut config, &|name| std::env::var(name).ok())?;
        fn set<T: Clone>(flag: &Option<T>, into: &mut T) {
            if let Some(value) = flag {
                *into = value.clone();
            }
        }
        set(&self.listen, &mut config.listen);
        set(&self.transport, &mut config.agent.transport);
        set(&self.state_dir, &mut config.state_dir);
        set(&self.languages, &mut config.languages);
        set(&self.kernel, &mut config.kernel);
        set(&self.images, &mut config.images.dir);
        set(&self.worker, &mut config.vm.worker);
        set(&self.agent, &mut config.agent.binary);
        set(&self.max_concurrent, &mut config.vm.max_concurrent);
        Ok(config)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log_format);
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clouded: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = arguments.config()?;
    if arguments.check {
        // A reader that has seen enough is no error.
        let _ = std::io::stdout().write_all(config.to_toml().as_bytes());
        return Ok(server::check(&config)?);
    }
    // The files that clouded writes hold programs, secrets, output and the memory of templates.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    raise_open_files();
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(server::run(config))?)
}

/// Each VM, waiting or not, takes some descriptors: the soft limit, 1,024 almost everywhere, is raised to
/// the hard one.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "raising the limit on open files");
    }
}

/// `RUST_LOG` chooses what is logged, `info` if it does not.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log
            .compact()
            .with_ansi(std::io::stderr().is_terminal())
            .init(),
        LogFormat::Json => log.json().init(),
    }
}
