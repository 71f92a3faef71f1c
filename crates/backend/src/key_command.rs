//! `clouded key`: the API keys of a server that is not running. `cloude key` has the same commands for a running one.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use cloude_backend::config::Config;
use cloude_backend::keys::Keys;
use cloude_backend::server;
use cloude_protocol::keys::{KeyRequest, Scope};

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Create a key and print it; it cannot be printed again
    Create {
        /// A name for people
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// Rights, separated by commas: run, read, admin
        #[arg(
            long = "scope",
            value_name = "SCOPES",
            value_delimiter = ',',
            default_value = "run,read"
        )]
        scopes: Vec<Scope>,
        /// Time until it expires: 30d, 12h, 1year [default: never]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// List the keys as JSON, one a line
    Ls,
    /// Revoke a key
    Revoke {
        /// The key's id, its second part
        id: String,
    },
}

impl KeyCommand {
    pub async fn run(&self, config: &Config) -> Result<(), Box<dyn Error>> {
        let (_lock, keys) = server::stopped_keys(config).await?;
        self.apply(&keys).await
    }

    async fn apply(&self, keys: &Keys) -> Result<(), Box<dyn Error>> {
        let mut stdout = std::io::stdout();
        match self {
            KeyCommand::Create {
                name,
                scopes,
                expires,
            } => {
                let request = KeyRequest {
                    name: name.clone(),
                    scopes: scopes.clone(),
                    expires_s: expires.map(|time| time.as_secs()),
                };
                writeln!(stdout, "{}", keys.create(request).await?.key)?;
            }
            KeyCommand::Ls => {
                for info in keys.list() {
                    writeln!(stdout, "{}", serde_json::to_string(&info)?)?;
                }
            }
            KeyCommand::Revoke { id } => {
                if !keys.revoke(id).await? {
                    return Err(format!(
                        "no API key has the id `{id}`; `clouded key ls` lists all"
                    )
                    .into());
                }
            }
        }
        Ok(())
    }
}
