//! The files that a request asks to have back: found when every process of the program is dead, and sent as events.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use cloude_protocol::Data;
use cloude_protocol::agent::{Artifacts, Event};
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use super::glob::Pattern;
use super::pipes::read_into;
use super::ready::Interest;
use super::sink::{CLIENT_STALL, Sink};
use super::walk::{kind, open_below, walk};

/// Bytes of the paths of files to send: they are in the agent's memory.
const MAX_PATH_BYTES: usize = 2 << 20;

/// Sends the files below `work_dir` that match, in the order of their paths. Returns the number of matching entries that
/// it left out: more than allowed, larger than allowed, no regular file, a name that is not UTF-8. Parts of a tree that
/// is too large to look at count as one.
pub fn send(work_dir: &Path, wanted: &Artifacts, sink: &mut dyn Sink) -> u64 {
    let (found, mut dropped) = find(work_dir, wanted);
    let root = match File::open(work_dir) {
        Ok(root) if !found.is_empty() => root,
        _ => return dropped + found.len() as u64,
    };
    let mut left = wanted.max_bytes;
    let mut buffer = Vec::new();
    for path in found {
        if sink.is_gone() {
            break;
        }
        let Some((file, bytes, mode)) = open_regular(&root, &path).filter(|file| file.1 <= left)
        else {
            dropped += 1;
            continue;
        };
        left -= bytes;
        sink.event(Event::Artifact { path, bytes, mode });
        buffer = send_content(&file, bytes, buffer, sink);
    }
    dropped
}

/// The paths of matching files, and the number of matches that are left out.
fn find(work_dir: &Path, wanted: &Artifacts) -> (BTreeSet<String>, u64) {
    let patterns: Vec<Pattern> = wanted
        .patterns
        .iter()
        .filter_map(|pattern| Pattern::new(pattern).ok())
        .collect();
    let (mut found, mut path_bytes, mut dropped) = (BTreeSet::new(), 0, 0);
    let complete = walk(work_dir, |path, stat| {
        if !patterns.iter().any(|pattern| pattern.matches(path)) {
            return ControlFlow::Continue(());
        }
        let fits = kind(stat) == SFlag::S_IFREG && stat.st_size as u64 <= wanted.max_bytes;
        match String::from_utf8(path.to_vec()) {
            Ok(path) if fits => {
                path_bytes += path.len();
                found.insert(path);
            }
            _ => dropped += 1,
        }
        // The walk has no order: only the last paths are known to be too many.
        while found.len() > wanted.max_files as usize || path_bytes > MAX_PATH_BYTES {
            let Some(last) = found.pop_last() else {
                break;
            };
            path_bytes -= last.len();
            dropped += 1;
        }
        ControlFlow::Continue(())
    });
    (found, dropped + u64::from(!complete))
}

/// Opens a file that is no FIFO, device or link; with its length and permission bits.
fn open_regular(root: &File, path: &str) -> Option<(File, u64, u32)> {
    // The walk saw a regular file, and nobody is left who could replace it. The flags and the check are for a mistake in
    // that: opening a FIFO blocks, and opening a device can have effects.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(open_below(root, path.as_bytes(), flags).ok()?);
    let metadata = file.metadata().ok()?;
    let mode = metadata.permissions().mode() & 0o7777;
    metadata.is_file().then_some((file, metadata.len(), mode))
}

/// Sends the first `bytes` of a file as far as the client reads them. Returns the buffer for the next one.
fn send_content(file: &File, bytes: u64, buffer: Vec<u8>, sink: &mut dyn Sink) -> Vec<u8> {
    let (mut buffer, mut left) = (buffer, bytes);
    while left > 0 && wait_for_room(sink) {
        buffer.clear();
        match read_into(file, &mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        buffer.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= buffer.len() as u64;
        let data = Data(std::mem::take(&mut buffer));
        buffer = sink.event(Event::ArtifactData { data }).unwrap_or_default();
    }
    buffer
}

/// Waits until the client has read so much that more can be sent. False if it is gone.
fn wait_for_room(sink: &mut dyn Sink) -> bool {
    let mut last_progress = Instant::now();
    while !sink.has_room() && !sink.is_gone() {
        let interest = Interest {
            report: None,
            outputs: [None, None],
            stdin: None,
            client: sink.as_fd(),
            client_write: true,
            timeout: Some(CLIENT_STALL.saturating_sub(last_progress.elapsed())),
        };
        let ready = interest.wait();
        if ready.client_writable {
            last_progress = Instant::now();
            sink.flush_some();
        }
        if ready.client_closed || last_progress.elapsed() >= CLIENT_STALL {
            sink.set_gone();
        }
    }
    !sink.is_gone()
}
