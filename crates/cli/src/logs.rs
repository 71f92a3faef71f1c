//! `logs`: the output of an execution.

use futures_util::StreamExt as _;

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::events;
use crate::id::check_id;
use crate::outcome;
use crate::terminal;

/// `cloude logs` exits with 0 however the program ended: `result` has its exit code.
pub async fn logs(args: args::Logs, options: &args::Backend) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(options)?;
    if args.follow {
        let execution = events::follow_by_id(&args.id, &backend).await?;
        // The notes of `run`, also that there was no output because nothing ran.
        if let Err(error) = outcome::report(&execution) {
            terminal::note(&error.to_string());
        }
        return Ok(0);
    }
    for (stream, write) in [
        ("stdout?stage=compile", stderr as fn(&[u8]) -> _),
        ("stderr?stage=compile", stderr),
        ("stdout", terminal::stdout),
        ("stderr", stderr),
    ] {
        let path = format!("v1/executions/{}/{stream}", args.id);
        let mut chunks = backend.get_bytes(&path).await?.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            write(&chunk.map_err(|error| backend.broken(&error))?)?;
        }
    }
    Ok(0)
}

fn stderr(bytes: &[u8]) -> Result<(), CliError> {
    terminal::stderr(bytes);
    Ok(())
}
