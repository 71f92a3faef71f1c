//! `key`: creates, lists and revokes the API keys of a backend.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use cloude_protocol::keys::{KeyInfo, KeyRequest, NewKey};

use crate::args::{self, KeyCommand};
use crate::client::Backend;
use crate::error::{CliError, UsageError};
use crate::table::rounded;
use crate::terminal::{self, Style, paint};

/// `cloude key`.
pub async fn key(args: args::Key, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
    match args.command {
        KeyCommand::Create(create) => self::create(create, &backend).await?,
        KeyCommand::Ls { json } => {
            let keys: Vec<KeyInfo> = backend.get("v1/keys").await?;
            match json {
                true => terminal::json(&keys)?,
                false => {
                    let text = table(&keys, now_ms(), terminal::stdout_colour());
                    terminal::stdout(text.as_bytes())?;
                }
            }
        }
        KeyCommand::Revoke { ids } => {
            // Ids become a part of the request's path.
            if let Some(id) = ids
                .iter()
                .find(|id| !id.bytes().all(|b| b.is_ascii_hexdigit()))
            {
                return Err(UsageError::KeyId { id: id.clone() }.into());
            }
            for id in ids {
                backend.delete(&format!("v1/keys/{id}")).await?;
                terminal::stdout(format!("{id}\n").as_bytes())?;
            }
        }
    }
    Ok(0)
}

/// Prints the key alone, for `CLOUDE_API_KEY=$(cloude key create)`.
async fn create(args: args::KeyCreate, backend: &Backend) -> Result<(), CliError> {
    let request = KeyRequest {
        name: args.name,
        scopes: args.scopes,
        expires_s: args.expires.map(|time| time.as_secs()),
    };
    let created: NewKey = backend.post("v1/keys", &request).await?;
    if args.json {
        return terminal::json(&created);
    }
    terminal::stdout(format!("{}\n", created.key).as_bytes())
}

/// A duration that clocks may have made negative.
fn age(milliseconds: i64) -> String {
    rounded(u64::try_from(milliseconds).unwrap_or(0))
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as i64)
}

fn table(keys: &[KeyInfo], now_ms: i64, colour: bool) -> String {
    let width = keys.iter().map(|key| key.name.chars().count()).max();
    let width = width.unwrap_or(0).max("NAME".len());
    let line = |[id, name, scopes, created, state]: [&str; 5]| {
        format!("{id:<12}  {name:<width$}  {scopes:<14}  {created:<8}  {state}")
    };
    let header = line(["ID", "NAME", "SCOPES", "CREATED", "STATE"]);
    let mut text = format!("{}\n", paint(&header, Style::Bold, colour));
    for key in keys {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let created = format!("{} ago", age(now_ms - key.created_ms));
        let (state, style) = match (key.revoked_ms, key.expires_ms) {
            (Some(_), _) => ("revoked".to_owned(), Style::Bad),
            (None, Some(ms)) if ms <= now_ms => ("expired".to_owned(), Style::Bad),
            (None, Some(ms)) => (format!("expires in {}", age(ms - now_ms)), Style::Good),
            (None, None) => ("valid".to_owned(), Style::Good),
        };
        let state = paint(&state, style, colour);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}",
            line([&key.id, &key.name, &scopes.join(","), &created, &state])
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use cloude_protocol::keys::Scope;

    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_key_with_its_state() {
        let key = |id: &str, expires_ms, revoked_ms| KeyInfo {
            id: id.into(),
            name: "ci".into(),
            scopes: vec![Scope::Run, Scope::Read],
            created_ms: 0,
            expires_ms,
            revoked_ms,
        };
        let keys = [
            key("3f0a9c11d2e4", None, None),
            key(
                "3f0a9c11d2e5",
                Some(9_000_000 + 2 * 86_400_000 + 5_000),
                None,
            ),
            key("3f0a9c11d2e6", Some(9), None),
            key("3f0a9c11d2e7", None, Some(8)),
        ];
        let expected = "\
ID            NAME  SCOPES          CREATED   STATE
3f0a9c11d2e4  ci    run,read        2h ago    valid
3f0a9c11d2e5  ci    run,read        2h ago    expires in 2days
3f0a9c11d2e6  ci    run,read        2h ago    expired
3f0a9c11d2e7  ci    run,read        2h ago    revoked
";
        assert_eq!(table(&keys, 9_000_000, false), expected);
    }
}
