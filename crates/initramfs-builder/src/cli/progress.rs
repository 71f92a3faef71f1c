//! Progress bars on standard error.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloude_initramfs_builder::pipeline::{Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A line for the step and a bar per layer on a terminal. Notices are printed always.
pub struct Bars {
    name: String,
    all: MultiProgress,
    step: ProgressBar,
    layers: Mutex<Vec<ProgressBar>>,
    quiet: bool,
}

impl Bars {
    pub fn new(name: &str, quiet: bool) -> Self {
        let all = MultiProgress::new();
        if quiet || !std::io::stderr().is_terminal() {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let step = all.add(ProgressBar::new_spinner());
        step.set_prefix(name.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg} {elapsed}")
        {
            step.set_style(style);
        }
        step.enable_steady_tick(Duration::from_millis(100));
        Bars {
            name: name.to_owned(),
            all,
            step,
            layers: Mutex::new(Vec::new()),
            quiet,
        }
    }

    fn layers(&self) -> std::sync::MutexGuard<'_, Vec<ProgressBar>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_layers(&self, sizes: &[u64]) {
        let style = ProgressStyle::with_template(
            "  {prefix:>8} [{bar:30}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec}",
        )
        .ok()
        .map(|style| style.progress_chars("=> "));
        let bars = sizes.iter().enumerate().map(|(index, size)| {
            let bar = self.all.add(ProgressBar::new(*size));
            bar.set_prefix(format!("layer {}", index + 1));
            if let Some(style) = &style {
                bar.set_style(style.clone());
            }
            bar
        });
        let bars = bars.collect();
        *self.layers() = bars;
        self.step.set_message("reading layers");
    }
}

impl Progress for Bars {
    fn event(&self, event: &Event) {
        match event {
            Event::Notice { message } if !self.quiet => {
                self.all.suspend(|| eprintln!("{}: {message}", self.name));
            }
            Event::Notice { .. } => {}
            Event::Step { message } => self.step.set_message(message.clone()),
            Event::Layers { sizes } => self.add_layers(sizes),
            Event::LayerBytes { layer, bytes } => {
                if let Some(bar) = self.layers().get(*layer) {
                    bar.set_position(*bytes);
                }
            }
            Event::LayerDone { layer } => {
                if let Some(bar) = self.layers().get(*layer) {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.step.finish_and_clear();
        let _ = self.all.clear();
    }
}
