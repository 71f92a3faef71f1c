//! Results: a table for people, and JSON with every sample.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use crate::sample::Samples;

/// One line of the table.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// The name of the measurement. Plots select rows by it.
    name: String,
    /// The result with its unit.
    measured: String,
    /// The result of the baseline, for example of QEMU.
    compared: Option<String>,
    /// The number that `threshold` applies to, often a ratio.
    value: f64,
    /// The limit that `value` must meet, if there is one.
    threshold: Option<Threshold>,
    /// All samples, by name of the series.
    samples: Vec<(String, Vec<f64>)>,
}

/// The limit for a row's value (docs/benchmarks.md).
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    /// A row without a threshold, which is only reported.
    pub fn new(name: impl Into<String>, measured: String, value: f64) -> Self {
        Row {
            name: name.into(),
            measured,
            compared: None,
            value,
            threshold: None,
            samples: Vec::new(),
        }
    }

    /// Sets the result of the baseline.
    pub fn against(mut self, compared: String) -> Self {
        self.compared = Some(compared);
        self
    }

    /// Sets the threshold.
    pub fn promised(mut self, threshold: Threshold) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// Adds a series of samples.
    pub fn samples(mut self, name: &str, samples: &Samples) -> Self {
        self.samples.push((name.to_owned(), samples.0.clone()));
        self
    }

    /// The name of the measurement.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The series with this name.
    pub fn sample(&self, name: &str) -> Option<&[f64]> {
        let (_, samples) = self.samples.iter().find(|(known, _)| known == name)?;
        Some(samples)
    }

    fn verdict(&self) -> (String, Option<bool>) {
        match self.threshold {
            None => (String::new(), None),
            Some(Threshold::AtMost(limit)) => (format!("≤ {limit}"), Some(self.value <= limit)),
            Some(Threshold::AtLeast(limit)) => (format!("≥ {limit}"), Some(self.value >= limit)),
        }
    }
}

/// The rows of one part, `vm` or `image`, and a description of the host.
#[derive(Serialize, Deserialize)]
pub struct Report {
    part: String,
    pub runs: usize,
    host: Vec<(String, String)>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(part: &str, runs: usize) -> Self {
        Report {
            part: part.to_owned(),
            runs,
            host: host(),
            rows: Vec::new(),
        }
    }

    /// Adds a row and prints it to stderr at once, because the benchmark takes minutes.
    pub fn push(&mut self, row: Row) {
        eprintln!(
            "{}: {}{}",
            row.name,
            row.measured,
            row.compared
                .as_deref()
                .map_or(String::new(), |text| format!(" against {text}"))
        );
        self.rows.push(row);
    }

    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn write(&self, path: &Path) {
        write(path, self);
    }
}

/// Reads the JSON files of the parts.
pub fn read(parts: &[PathBuf]) -> Vec<Report> {
    parts
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

/// Describes the host in one line.
pub fn machine(report: &Report) -> String {
    let host: Vec<String> = report
        .host
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    host.join(", ")
}

/// Writes all parts to one JSON file and prints their table. Fails if a threshold is missed.
pub fn join(reports: &[Report], json: &Path) -> ExitCode {
    write(json, &reports);

    let mut lines = vec![["", "measured", "against", "value", "promised", ""].map(str::to_owned)];
    let mut missed = 0;
    for row in reports.iter().flat_map(|report| &report.rows) {
        let (promised, kept) = row.verdict();
        missed += usize::from(kept == Some(false));
        let mark = kept.map_or("", |kept| if kept { "pass" } else { "FAIL" });
        let value = if promised.is_empty() {
            String::new()
        } else {
            format!("{:.2}", row.value)
        };
        lines.push([
            row.name.clone(),
            row.measured.clone(),
            row.compared.clone().unwrap_or_default(),
            value,
            promised,
            mark.to_owned(),
        ]);
    }
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
    for report in reports {
        println!(
            "{}: medians of {}; {}",
            report.part,
            report.runs,
            machine(report)
        );
    }
    println!("every sample: {}", json.display());
    if missed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn write(path: &Path, value: &impl Serialize) {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(path, serde_json::to_string_pretty(value).unwrap() + "\n").unwrap();
}

fn host() -> Vec<(String, String)> {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()?
                .trim()
                .to_owned(),
        )
    };
    let mut host = Vec::new();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    host.push(("cpus".to_owned(), cpus.to_string()));
    for (name, program, arguments) in [
        ("kernel", "uname", &["-r"][..]),
        ("qemu", "qemu-system-x86_64", &["--version"]),
        ("skopeo", "skopeo", &["--version"]),
        ("umoci", "umoci", &["--version"]),
    ] {
        if let Some(text) = first_line(program, arguments) {
            host.push((name.to_owned(), text));
        }
    }
    let emulated = std::env::var_os("CLOUDE_EMULATED_HOST").is_some();
    host.push(("emulated".to_owned(), emulated.to_string()));
    host
}
