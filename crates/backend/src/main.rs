//! `clouded`: command line, configuration, log.

mod key_command;
mod manual;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use cloude_backend::allocator;
use cloude_backend::config::{self, Config, ConfigError, Listen, Transport};
use cloude_backend::privileges::{self, Rights};
use cloude_backend::server;
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

/// Runs code in fresh micro-VMs, over HTTP.
///
/// Environment variables (BACKEND_SERVER_ADDR, VM_KERNEL_PATH, …) override the configuration file, and flags override
/// both. See docs/configuration.md.
#[derive(Parser)]
#[command(name = "clouded", version)]
struct Arguments {
    /// A TOML file [default: /etc/cloude/clouded.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on: ADDRESS:PORT or unix:/PATH
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Connection to the agents: vsock or ip
    #[arg(long)]
    transport: Option<Transport>,
    /// Folder of the job store, the lock and the run directory
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Folder of the languages
    #[arg(long, value_name = "DIR")]
    languages: Option<PathBuf>,
    /// A kernel folder, or a bare kernel
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Folder of the language images
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The cloude-vmm binary
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// The cloude-agent binary
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// VMs at once; 0: twice the CPUs
    #[arg(long, value_name = "N")]
    max_concurrent: Option<usize>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Print the resulting configuration, check it, and exit
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Create, list and revoke API keys while clouded is not running
    #[command(subcommand)]
    Key(key_command::KeyCommand),
    /// Write the manual page to a folder
    #[command(hide = true)]
    Man { dir: PathBuf },
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
    if let Some(Command::Man { dir }) = &arguments.command {
        return Ok(manual::write(Arguments::command(), dir)?);
    }
    let config = arguments.config()?;
    if arguments.check {
        // A closed pipe, as of `clouded --check | head`, is no error.
        let _ = std::io::stdout().write_all(config.to_toml().as_bytes());
        return Ok(server::check(&config)?);
    }
    // Files of clouded hold programs, secrets, output and the memory of templates.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if let Some(Command::Key(command)) = &arguments.command {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        return runtime.block_on(command.run(&config));
    }
    raise_open_files();
    match privileges::drop_root(&config)? {
        Rights::Ordinary => {}
        Rights::Dropped(user) => tracing::info!(user, "gave up root's rights but CAP_NET_ADMIN"),
        Rights::Root(reason) => tracing::warn!(reason, "running with root's rights"),
    }
    allocator::unmap_large_buffers();
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(server::run(config))?)
}

/// Raises the soft limit on open files, usually 1024, to the hard limit, because each VM uses several descriptors.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit on open files (RLIMIT_NOFILE)");
    }
}

/// Logs to stderr. `RUST_LOG` sets the level; the default is `info`.
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
