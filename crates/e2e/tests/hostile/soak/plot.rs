//! The samples of a soak as a table and as a plot.

use std::fmt::Write as _;
use std::path::Path;

use plotters::prelude::*;

use super::gauge::{Gauges, NAMES};

const SIZE: (u32, u32) = (900, 900);
const COLOUR: RGBColor = RGBColor(0, 114, 178);

/// Writes `soak.csv` and `soak.svg`. A sample has the seconds since the start.
pub fn write(samples: &[(f64, Gauges)], folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("soak.csv"), csv(samples)).unwrap();
    let path = folder.join("soak.svg");
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    for (index, panel) in area.split_evenly((NAMES.len(), 1)).iter().enumerate() {
        let points = samples
            .iter()
            .map(|(second, gauges)| (second / 60.0, gauges.values()[index]));
        let most = points.clone().map(|(_, value)| value).fold(1.0, f64::max) * 1.15;
        let last = samples.last().map_or(1.0, |(second, _)| second / 60.0);
        let mut chart = ChartBuilder::on(panel)
            .caption(NAMES[index], ("sans-serif", 14))
            .margin(4)
            .x_label_area_size(20)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, 0.0..most)
            .unwrap();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(4)
            .x_label_formatter(&|minute| format!("{minute:.0} min"))
            .draw()
            .unwrap();
        chart.draw_series(LineSeries::new(points, &COLOUR)).unwrap();
    }
    area.present().unwrap();
}

fn csv(samples: &[(f64, Gauges)]) -> String {
    let mut text = format!("seconds,{}\n", NAMES.join(","));
    for (second, gauges) in samples {
        let _ = write!(text, "{second:.0}");
        for value in gauges.values() {
            let _ = write!(text, ",{value:.1}");
        }
        text.push('\n');
    }
    text
}
