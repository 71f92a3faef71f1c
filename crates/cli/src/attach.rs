//! `attach`: input and output of an execution that runs.

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::id::check_id;
use crate::outcome;
use crate::session;

/// `cloude attach`. Output, notes and exit code are those of `cloude run`.
pub async fn attach(args: args::Attach, options: &args::Backend) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(options)?;
    let execution = session::attach(&args.id, !args.no_stdin, &backend).await?;
    Ok(outcome::report(&execution)?)
}
