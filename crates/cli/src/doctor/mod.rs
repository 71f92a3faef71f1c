//! `doctor`: checks this machine and the backend; each failed check comes with a fix.

mod check;
mod host;
mod images;
mod isolation;
mod kvm;

use std::fmt::Write as _;

use cloude_protocol::api::{Installation, LanguageInfo};
use cloude_protocol::paths::installed_kernel;
use serde::Serialize;

use self::check::{Check, State};
use crate::args;
use crate::client::Backend;
use crate::error::{BackendError, CliError};
use crate::paths;
use crate::terminal::{self, Style, paint};

/// Exit code if a check failed. docs/cli.md lists the others.
const BROKEN: u8 = 1;

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

/// `cloude doctor`.
pub async fn doctor(args: args::Doctor, options: &args::Backend) -> Result<u8, CliError> {
    let (backend, server) = ask(options).await;
    let mut checks = vec![kvm::kvm()];
    match &server {
        Some(Server {
            installation,
            languages,
        }) => {
            let found = format!(
                "the backend's; its state directory is {}",
                installation.state_dir
            );
            checks.extend([
                Check::ok("files", found),
                host::kernel(&installation.kernel),
            ]);
            checks.extend(images::remote(installation, languages));
            checks.extend(isolation::checks(&installation.isolation));
        }
        None => {
            let found = "the default paths of this user: no backend reported others";
            checks.extend([
                Check::ok("files", found),
                host::kernel(&installed_kernel(&paths::kernel())),
            ]);
            checks.extend(images::local());
        }
    }
    checks.push(backend);
    checks.extend([host::tun(), host::nft(), host::ip_forward()]);

    let ok = checks.iter().all(|check| check.state != State::Broken);
    if args.json {
        let checks = &checks;
        terminal::json(&Report { ok, checks })?;
    } else {
        terminal::stdout(table(&checks, terminal::stdout_colour()).as_bytes())?;
    }
    Ok(if ok { 0 } else { BROKEN })
}

/// Paths and languages that the backend reports.
struct Server {
    installation: Installation,
    languages: Vec<LanguageInfo>,
}

/// Queries the backend. `GET /v1/installation` fails on an older one and from another machine: the paths are
/// then unknown.
async fn ask(options: &args::Backend) -> (Check, Option<Server>) {
    let backend = match Backend::new(options) {
        Ok(backend) => backend.without_retries(),
        Err(error) => {
            let fix = "correct --backend or CLOUDE_BACKEND";
            return (Check::broken("backend", error.to_string(), fix), None);
        }
    };
    let languages = backend.languages().await;
    let check = check(&backend, &languages);
    let Ok(languages) = languages else {
        return (check, None);
    };
    let installation = backend.get("v1/installation").await.ok();
    let server = installation.map(|installation| Server {
        installation,
        languages,
    });
    (check, server)
}

fn check(backend: &Backend, languages: &Result<Vec<LanguageInfo>, CliError>) -> Check {
    let name = "backend";
    match languages {
        Ok(languages) => {
            let ready = languages
                .iter()
                .filter(|language| language.image_ready)
                .count();
            Check::ok(
                name,
                format!(
                    "{} has {} languages, {ready} with an image",
                    backend.shown(),
                    languages.len()
                ),
            )
        }
        Err(error) => Check::broken(
            name,
            match error {
                // Without the way out, which is the fix.
                CliError::Backend(BackendError::Connect { url, reason }) => {
                    format!("no connection to {url}: {reason}")
                }
                error => error.to_string(),
            },
            match error {
                CliError::Backend(BackendError::Unauthorized { .. }) => {
                    "put an API key with the scope `read` into CLOUDE_API_KEY"
                }
                _ => "start `clouded`, or name another backend with --backend or CLOUDE_BACKEND",
            },
        ),
    }
}

fn table(checks: &[Check], colour: bool) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (mark, style) = match check.state {
            State::Ok => ("✓", Style::Good),
            State::Warning => ("!", Style::Warning),
            State::Broken => ("✗", Style::Bad),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} {:<width$}  {}",
            paint(mark, style, colour),
            check.name,
            check.found
        );
        if let Some(fix) = &check.fix {
            let _ = writeln!(
                text,
                "  {:<width$}  {} {fix}",
                "",
                paint("fix:", Style::Bold, colour)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Check, table};

    #[test]
    fn each_check_is_a_line_and_each_fix_another() {
        let checks = [
            Check::ok("kvm", "boots kernels"),
            Check::broken("kernel", "none", "run kernel/fetch"),
        ];
        assert_eq!(
            table(&checks, false),
            "✓ kvm     boots kernels\n✗ kernel  none\n          fix: run kernel/fetch\n"
        );
    }
}
