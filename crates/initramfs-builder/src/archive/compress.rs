//! The compressors of an initramfs, as one writer.

use std::io::{self, Write};

use super::{Output, WriteError, lz4};

/// Threads of zstd. The output is the same for every number of 1 and more (`ZSTD_c_nbWorkers`).
const ZSTD_WORKERS: u32 = 2;

/// Counts bytes.
pub(super) struct Counting<W> {
    out: W,
    pub count: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) enum Compressor<W: Write> {
    Plain(Counting<W>),
    Zstd(Box<zstd::Encoder<'static, Counting<W>>>),
    Lz4(Box<lz4::Encoder<Counting<W>>>),
}

impl<W: Write> Compressor<W> {
    pub fn new(out: W, output: Output) -> Result<Self, WriteError> {
        let out = Counting { out, count: 0 };
        Ok(match output {
            Output::Plain => Compressor::Plain(out),
            Output::Zstd { level } if !(1..=19).contains(&level) => {
                return Err(WriteError::Level { level });
            }
            Output::Zstd { level } => Compressor::Zstd(Box::new(
                zstd_encoder(out, level).map_err(WriteError::Write)?,
            )),
            Output::Lz4 => {
                Compressor::Lz4(Box::new(lz4::Encoder::new(out).map_err(WriteError::Write)?))
            }
        })
    }

    /// Ends the stream and pads it to a multiple of 4 bytes. Returns its length.
    pub fn finish(self) -> io::Result<u64> {
        let mut out = match self {
            Compressor::Plain(out) => out,
            Compressor::Zstd(encoder) => encoder.finish()?,
            Compressor::Lz4(encoder) => encoder.finish()?,
        };
        let zeros = [0; 3];
        let padding = crate::cpio::padding(out.count);
        out.write_all(&zeros[..padding])?;
        out.flush()?;
        Ok(out.count)
    }
}

fn zstd_encoder<W: Write>(out: W, level: i32) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    encoder.multithread(ZSTD_WORKERS)?;
    // The kernel verifies it and refuses a damaged archive.
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::Plain(out) => out.write(bytes),
            Compressor::Zstd(encoder) => encoder.write(bytes),
            Compressor::Lz4(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::Plain(out) => out.flush(),
            Compressor::Zstd(encoder) => encoder.flush(),
            Compressor::Lz4(encoder) => encoder.flush(),
        }
    }
}
