//! What a person sees: colour, spinners and notes, only where a terminal is.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::CliError;

/// How a piece of text is marked where colour is on.
#[derive(Clone, Copy)]
pub enum Style {
    /// Stands out.
    Bold,
    /// Steps back.
    Dim,
    /// All is well.
    Good,
    /// Something is broken.
    Bad,
    /// Worth a look.
    Warning,
}

/// The text with its style's escape sequences (ECMA-48 SGR), or as it is.
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

/// Whether to colour standard output: a terminal, and no NO_COLOR (no-color.org).
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

/// Writes bytes to standard output, now.
pub fn stdout(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => CliError::BrokenPipe,
            _ => CliError::Infrastructure(format!("cannot write to standard output: {error}")),
        })
}

/// Writes bytes to standard error, now. Nobody is left to tell of a failure.
pub fn stderr(bytes: &[u8]) {
    let _ = std::io::stderr().lock().write_all(bytes);
}

/// A line of our own on standard error.
pub fn note(text: &str) {
    message(text, Style::Warning);
}

/// An error of our own on standard error.
pub fn error(text: &str) {
    clear_spinner();
    message(text, Style::Bad);
}

fn message(text: &str, style: Style) {
    let line = format!("{} {text}\n", paint("cloude:", style, stderr_colour()));
    stderr(line.as_bytes());
}

static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows that something goes on, where standard error is a terminal.
pub fn show_spinner(text: &'static str) {
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
    let bar = ProgressBar::new_spinner().with_message(text);
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

/// Takes the spinner off the screen, before anything else is written there.
pub fn clear_spinner() {
    if let Ok(mut spinner) = SPINNER.lock()
        && let Some(bar) = spinner.take()
    {
        bar.finish_and_clear();
    }
}
