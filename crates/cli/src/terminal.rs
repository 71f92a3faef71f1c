//! Standard output and standard error: bytes, JSON, notes, colour and the spinner. Colour and the spinner
//! appear on a terminal only.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::{CliError, LocalError};
use crate::raw_mode;

/// How a piece of text looks where colour is on.
#[derive(Clone, Copy)]
pub enum Style {
    Bold,
    Dim,
    Good,
    Bad,
    Warning,
}

/// Wraps `text` in the escape sequences of its style (ECMA-48 SGR) if `colour` is set.
pub fn paint(text: &str, style: Style, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Good => "32",
        Style::Bad => "1;31",
        Style::Warning => "33",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// True if standard output is a terminal and NO_COLOR is unset (no-color.org).
pub fn stdout_colour() -> bool {
    std::io::stdout().is_terminal() && colour_wanted()
}

fn stderr_colour() -> bool {
    std::io::stderr().is_terminal() && colour_wanted()
}

fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes bytes to standard output and flushes.
pub fn stdout(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => CliError::BrokenPipe,
            _ => LocalError::Stdout { error }.into(),
        })
}

/// Writes a value to standard output as one line of JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), CliError> {
    let json = serde_json::to_string(value).map_err(|error| LocalError::Json { error })?;
    stdout(format!("{json}\n").as_bytes())
}

/// Writes bytes to standard error. A failure is ignored: there is no other place to report it.
pub fn stderr(bytes: &[u8]) {
    let _ = std::io::stderr().lock().write_all(bytes);
}

/// Prints `cloude: TEXT` as a note on standard error.
pub fn note(text: &str) {
    message(text, Style::Warning);
}

/// Prints `cloude: TEXT` as an error on standard error.
pub fn error(text: &str) {
    clear_spinner();
    message(text, Style::Bad);
}

fn message(text: &str, style: Style) {
    let end = if raw_mode::is_active() { "\r\n" } else { "\n" };
    let line = format!("{} {text}{end}", paint("cloude:", style, stderr_colour()));
    stderr(line.as_bytes());
}

static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows a spinner if standard error is a terminal, or changes the text of the one that is there.
pub fn show_spinner(text: impl Into<Cow<'static, str>>) {
    if !std::io::stderr().is_terminal()
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
    {
        return;
    }
    let Ok(mut spinner) = SPINNER.lock() else {
        return;
    };
    if let Some(bar) = spinner.as_ref() {
        bar.set_message(text);
        return;
    }
    let bar = ProgressBar::new_spinner().with_message(text.into());
    let template = if colour_wanted() {
        "{spinner:.cyan} {msg:.dim} {elapsed:.dim}"
    } else {
        "{spinner} {msg} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(80));
    *spinner = Some(bar);
}

/// Removes the spinner. Call it before anything else is written to the terminal.
pub fn clear_spinner() {
    if let Ok(mut spinner) = SPINNER.lock()
        && let Some(bar) = spinner.take()
    {
        bar.finish_and_clear();
    }
}
