//! The manual page clouded(8), from the command line's definition.

use std::fs::File;
use std::io;
use std::path::Path;

use clap::Command;

/// Writes `clouded.8` to a folder.
pub fn write(command: Command, dir: &Path) -> io::Result<()> {
    let page = clap_mangen::Man::new(command).section("8");
    let path = dir.join("clouded.8");
    let write = |path| page.render(&mut File::create(path)?);
    write(&path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot write {}: {error}", path.display()),
        )
    })
}
