//! Reads the layers of an image in parallel and merges them in order.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::cache::CacheError;
use crate::error::BuildError;
use crate::image::{BlobRead, Image};
use crate::layer::{Compression, Context, Layer, LayerError};
use crate::progress::{Cancel, Event, Progress};
use crate::tree::Tree;

/// Layers that are read in parallel. More connections do not speed a registry up, and each needs a decompressor.
const AT_ONCE: usize = 4;

/// Reads and merges all layers.
pub(super) fn merge(
    image: &Image<'_>,
    context: &Context,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Tree, BuildError> {
    let sizes = image.layers.iter().map(|layer| layer.size).collect();
    progress.event(&Event::Layers { sizes });
    let stop = cancel.child();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..image.layers.len().min(AT_ONCE) {
            let (sender, stop, next) = (sender.clone(), &stop, &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= image.layers.len() || stop.is_set() {
                        return;
                    }
                    let layer = read(image, index, context, stop, progress);
                    if sender.send((index, layer)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let tree = apply_in_order(&receiver, image.layers.len(), context);
        // Stops the readers that are left after an error.
        stop.set();
        cancel.check()?;
        tree
    })
}

fn apply_in_order(
    receiver: &mpsc::Receiver<(usize, Result<Layer, BuildError>)>,
    count: usize,
    context: &Context,
) -> Result<Tree, BuildError> {
    let mut tree = Tree::new(context);
    let mut waiting = BTreeMap::new();
    let mut applied = 0;
    for (index, layer) in receiver {
        waiting.insert(index, layer?);
        while let Some(layer) = waiting.remove(&applied) {
            tree.apply(layer)?;
            applied += 1;
        }
    }
    if applied < count {
        Err(BuildError::Cancelled)
    } else {
        Ok(tree)
    }
}

fn read(
    image: &Image<'_>,
    index: usize,
    context: &Context,
    stop: &Cancel,
    progress: &dyn Progress,
) -> Result<Layer, BuildError> {
    let layer = match read_once(image, index, context, stop, progress) {
        // A corrupt file of the cache has been deleted: fetch the blob.
        Err(BuildError::Cache(CacheError::Corrupt { .. })) => {
            read_once(image, index, context, stop, progress)?
        }
        result => result?,
    };
    progress.event(&Event::LayerDone { layer: index });
    Ok(layer)
}

fn read_once(
    image: &Image<'_>,
    index: usize,
    context: &Context,
    stop: &Cancel,
    progress: &dyn Progress,
) -> Result<Layer, BuildError> {
    let descriptor = &image.layers[index];
    let wrap = |source| BuildError::Layer {
        number: index + 1,
        digest: descriptor.digest.clone(),
        source,
    };
    let blob = image.opener.open(index, descriptor, progress)?;
    let mut tap = Tap {
        blob,
        failure: None,
        stop,
        progress,
        index,
        bytes: 0,
        ended: false,
    };
    let layer = Layer::read(&mut tap, Compression::Detect, context);
    if let Some(failure) = tap.failure.take() {
        return Err(failure);
    }
    // A malformed layer may have been damaged in transfer: reading it to its end verifies the digest, whose error is
    // more useful. Not after a limit: the rest may be huge.
    if !matches!(layer, Err(LayerError::Limit(_))) {
        let drained = io::copy(&mut tap, &mut io::sink());
        if let (Err(_), Some(failure)) = (drained, tap.failure.take()) {
            return Err(failure);
        }
    }
    let layer = layer.map_err(wrap)?;
    if let Some(diff_id) = image.diff_ids.get(index) {
        layer.verify_diff_id(diff_id).map_err(wrap)?;
    }
    Ok(layer)
}

/// A blob as [`Read`]: keeps the error that `io::Error` cannot carry, and reports progress.
struct Tap<'a> {
    blob: Box<dyn BlobRead + 'a>,
    failure: Option<BuildError>,
    stop: &'a Cancel,
    progress: &'a dyn Progress,
    index: usize,
    bytes: u64,
    ended: bool,
}

impl Read for Tap<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let read = match self.stop.check() {
            Ok(()) => self.blob.read(buffer),
            Err(cancelled) => Err(cancelled.into()),
        };
        match read {
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(read) => {
                self.bytes += read as u64;
                self.progress.event(&Event::LayerBytes {
                    layer: self.index,
                    bytes: self.bytes,
                });
                Ok(read)
            }
            Err(error) => {
                self.ended = true;
                self.failure = Some(error);
                Err(io::Error::other("the transfer failed"))
            }
        }
    }
}
