//! Tables of text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::terminal::{Style, paint};

/// Columns as wide as their widest cell, two spaces apart, below a bold header.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]], colour: bool) -> String {
    let mut widths = header.map(|name| name.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        line.trim_end().to_owned()
    };
    let mut text = format!("{}\n", paint(&line(header), Style::Bold, colour));
    for row in rows {
        let cells = row.each_ref().map(String::as_str);
        let _ = writeln!(text, "{}", line(cells));
    }
    text
}

/// The largest unit of a duration alone: `3days`.
pub fn rounded(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let unit = [86_400, 3_600, 60, 1]
        .into_iter()
        .find(|unit| seconds >= *unit);
    let unit = unit.unwrap_or(1);
    let whole = Duration::from_secs(seconds / unit * unit);
    let text = humantime::format_duration(whole).to_string();
    // Months and years are several units.
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A text from a program or another user, without control characters: a terminal would obey them.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{printable, rounded, table};

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [["a", "xyz"], ["long", "x"]].map(|row| row.map(str::to_owned));
        let expected = "ID    N\na     xyz\nlong  x\n";
        assert_eq!(table(["ID", "N"], &rows, false), expected);
    }

    #[test]
    fn ages_have_their_largest_unit() {
        let table = [
            (999, "0s"),
            (61_000, "1m"),
            (7_300_000, "2h"),
            (90_000_000, "1day"),
        ];
        for (milliseconds, expected) in table {
            assert_eq!(rounded(milliseconds), expected);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J"), "a\u{fffd}[2J");
    }
}
