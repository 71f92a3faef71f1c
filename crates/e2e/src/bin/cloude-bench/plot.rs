//! SVG plots of the results, for docs/benchmarks/.

use std::path::Path;

use plotters::coord::combinators::IntoLogRange as _;
use plotters::prelude::*;

use crate::report::Report;
use crate::sample::Samples;

const SIZE: (u32, u32) = (900, 420);
/// The colours of the curves, in order.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
];

/// A curve: its title and its samples in milliseconds, sorted.
type Curve = (String, Vec<f64>);

/// Writes every plot for which the results have samples. `caption` names the machine and the commit.
pub fn write(reports: &[Report], folder: &Path, caption: &str) {
    std::fs::create_dir_all(folder).unwrap();
    for language in ["python", "node"] {
        let curves = latencies(reports, language);
        if !curves.is_empty() {
            let title =
                format!("{language} hello: how many of all executions had answered after so long");
            let path = folder.join(format!("{language}-latency.svg"));
            distribution(&path, &title, caption, &curves);
        }
        let parts = parts(reports, language);
        if !parts.is_empty() {
            let title = format!("{language} hello from the pool: where the time goes (medians)");
            let path = folder.join(format!("{language}-parts.svg"));
            bars(&path, &title, caption, &parts);
        }
    }
}

fn samples(reports: &[Report], row: &str, name: &str) -> Option<Vec<f64>> {
    let rows = reports.iter().flat_map(Report::rows);
    let found = rows
        .filter(|candidate| candidate.name() == row)
        .find_map(|row| row.sample(name))?;
    let mut sorted = found.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then_some(sorted)
}

fn latencies(reports: &[Report], language: &str) -> Vec<Curve> {
    let bare = format!("{language} hello from the pool / bare interpreter");
    let cold = format!("{language} hello from the pool: times as fast as a cold boot");
    let microvm = format!("cold boot, {language} image, tuned kernel: cloude-vmm / QEMU microvm");
    let wanted = [
        ("from the pool", &bare, "pool"),
        ("a bare interpreter's process", &bare, "bare"),
        ("a VM booted for it", &cold, "cold"),
        ("QEMU microvm until the agent is ready", &microvm, "qemu"),
    ];
    wanted
        .into_iter()
        .filter_map(|(title, row, name)| Some((title.to_owned(), samples(reports, row, name)?)))
        .collect()
}

fn parts(reports: &[Report], language: &str) -> Vec<(String, f64)> {
    let row = format!("{language} hello from the pool: where the time goes");
    ["queue", "start", "run", "rest"]
        .into_iter()
        .filter_map(|name| {
            Some((
                name.to_owned(),
                Samples(samples(reports, &row, name)?).median(),
            ))
        })
        .collect()
}

/// Draws the cumulative distribution of each curve over a logarithmic axis.
fn distribution(path: &Path, title: &str, caption: &str, curves: &[Curve]) {
    let all = curves.iter().flat_map(|(_, samples)| samples);
    let least = all.clone().copied().fold(f64::MAX, f64::min) * 0.8;
    let most = all.copied().fold(f64::MIN, f64::max) * 1.2;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(48)
        .build_cartesian_2d((least..most).log_scale(), 0.0..1.0_f64)
        .unwrap();
    chart
        .configure_mesh()
        .x_desc(format!("milliseconds; {caption}"))
        .y_desc("share")
        .draw()
        .unwrap();
    for ((name, samples), colour) in curves.iter().zip(COLOURS) {
        let last = samples.len() as f64;
        let steps = samples
            .iter()
            .enumerate()
            .flat_map(|(index, ms)| [(*ms, index as f64 / last), (*ms, (index + 1) as f64 / last)]);
        chart
            .draw_series(LineSeries::new(steps, colour.stroke_width(2)))
            .unwrap()
            .label(format!("{name} ({})", samples.len()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .unwrap();
    area.present().unwrap();
}

fn bars(path: &Path, title: &str, caption: &str, parts: &[(String, f64)]) {
    let most = parts.iter().map(|(_, ms)| *ms).fold(0.0, f64::max) * 1.2;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(60)
        .build_cartesian_2d((0..parts.len()).into_segmented(), 0.0..most)
        .unwrap();
    let name = |index: &SegmentValue<usize>| match index {
        SegmentValue::CenterOf(index) => parts
            .get(*index)
            .map_or(String::new(), |(name, _)| name.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_label_formatter(&name)
        .x_desc(caption)
        .y_desc("milliseconds")
        .draw()
        .unwrap();
    let rectangles = parts.iter().enumerate().map(|(index, (_, ms))| {
        let corners = [
            (SegmentValue::Exact(index), 0.0),
            (SegmentValue::Exact(index + 1), *ms),
        ];
        let mut bar = Rectangle::new(corners, COLOURS[0].filled());
        bar.set_margin(0, 0, 24, 24);
        bar
    });
    chart.draw_series(rectangles).unwrap();
    area.present().unwrap();
}
