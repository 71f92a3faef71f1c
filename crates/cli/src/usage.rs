//! `usage`: what each API key has used.

use std::time::Duration;

use cloude_protocol::keys::Usage;

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::table::table;
use crate::terminal;

/// `cloude usage`.
pub async fn list(args: args::Usage, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
    let usage: Vec<Usage> = backend.get("v1/usage").await?;
    if args.json {
        terminal::json(&usage)?;
    } else {
        terminal::stdout(shown(&usage, terminal::stdout_colour()).as_bytes())?;
    }
    Ok(0)
}

fn shown(usage: &[Usage], colour: bool) -> String {
    let rows: Vec<[String; 5]> = usage
        .iter()
        .map(|key| {
            [
                key.key.clone(),
                key.executions.to_string(),
                time(key.vm_ms),
                time(key.cpu_ms),
                format!("{:.1}", key.memory_mib_s as f64 / 1024.0),
            ]
        })
        .collect();
    let header = ["KEY", "EXECUTIONS", "VM TIME", "CPU TIME", "MEMORY (GIB S)"];
    table(header, &rows, colour)
}

/// Seconds and larger units; milliseconds below a second.
fn time(milliseconds: u64) -> String {
    let time = match milliseconds {
        0..1000 => Duration::from_millis(milliseconds),
        _ => Duration::from_secs(milliseconds / 1000),
    };
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_key() {
        let usage = Usage {
            key: "local".into(),
            executions: 12,
            vm_ms: 61_500,
            cpu_ms: 250,
            memory_mib_s: 3072,
        };
        let expected = "\
KEY    EXECUTIONS  VM TIME  CPU TIME  MEMORY (GIB S)
local  12          1m 1s    250ms     3.0
";
        assert_eq!(shown(&[usage], false), expected);
    }
}
