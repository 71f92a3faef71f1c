//! A worker for tests: a thread that speaks the control protocol.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use cloude_vmm::control::{Channel, Origin};

use super::process::{Killed, Worker};
use crate::isolation::Cell;

/// A worker whose control socket `play` serves. Its process only sleeps.
pub fn worker(play: impl FnOnce(Channel) + Send + 'static) -> Worker {
    let (host, theirs) = Channel::pair().unwrap();
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    std::thread::spawn(move || play(theirs));
    let process = Killed(child.try_into().unwrap());
    Worker::of(process, Cell::default(), host).unwrap()
}

/// An unnamed file with this content.
pub fn file(text: &str) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
    file
}

pub fn origin() -> Origin {
    Origin {
        kernel: "k".into(),
        initramfs: "i".into(),
    }
}
