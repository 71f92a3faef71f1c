//! Events as lines of JSON.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloude_initramfs_builder::pipeline::{Event, Progress};
use serde::Serialize;

/// At most one line a layer in this time.
const INTERVAL: Duration = Duration::from_millis(250);

/// Writes each event, with the image's name, to standard output.
pub struct JsonLines {
    name: String,
    told: Mutex<HashMap<usize, Instant>>,
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
            told: Mutex::default(),
        }
    }
}

impl Progress for JsonLines {
    fn event(&self, event: &Event) {
        if let Event::LayerBytes { layer, .. } = event {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.get(layer).is_some_and(|at| at.elapsed() < INTERVAL) {
                return;
            }
            told.insert(*layer, Instant::now());
        }
        print(&self.name, event);
    }
}

/// Writes one line. Who reads it may be gone, which is no reason not to build.
pub fn print<T: Serialize>(image: &str, event: &T) {
    if let Ok(line) = serde_json::to_string(&Line { image, event }) {
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}
