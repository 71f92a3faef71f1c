//! Prints events as JSON lines.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloude_initramfs_builder::pipeline::{Event, Progress};
use serde::Serialize;

/// Shortest time between two `layer_bytes` lines of a layer.
const INTERVAL: Duration = Duration::from_millis(250);

/// Prints each event with the image's name.
pub struct JsonLines {
    name: String,
    printed: Mutex<HashMap<usize, Instant>>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    image: &'a str,
    #[serde(flatten)]
    event: &'a T,
}

impl JsonLines {
    pub fn new(name: &str) -> Self {
        JsonLines {
            name: name.to_owned(),
            printed: Mutex::default(),
        }
    }
}

impl Progress for JsonLines {
    fn event(&self, event: &Event) {
        if let Event::LayerBytes { layer, .. } = event {
            let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
            if printed.get(layer).is_some_and(|at| at.elapsed() < INTERVAL) {
                return;
            }
            printed.insert(*layer, Instant::now());
        }
        print(&self.name, event);
    }
}

/// Prints one line. Errors are ignored: the build goes on without a reader.
pub fn print<T: Serialize>(image: &str, event: &T) {
    if let Ok(line) = serde_json::to_string(&Line { image, event }) {
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}
