//! LZ4 in the legacy framing: the magic number, then blocks of 8 MiB, the last one shorter, each
//! compressed on its own and preceded by its compressed size (lz4_Frame_format.md, "Legacy frame";
//! the kernel's lib/decompress_unlz4.c reads nothing else).
//!
//! The frame has no end mark: it ends where the input does, or, for the kernel, at a block size of 0.
//! A segment behind it must therefore begin with zeros; [`crate::boot_segment`] does.

use std::io::{self, Read, Write};

/// First bytes of the file, little-endian.
pub(super) const MAGIC: [u8; 4] = 0x184c_2102u32.to_le_bytes();
/// Uncompressed bytes of a block (`LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE`).
const BLOCK: usize = 8 << 20;

/// Compresses to the legacy frame.
pub(super) struct Encoder<W> {
    out: W,
    block: Vec<u8>,
    compressed: Vec<u8>,
}

impl<W: Write> Encoder<W> {
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        let compressed = vec![0; lz4_flex::block::get_maximum_output_size(BLOCK)];
        Ok(Encoder {
            out,
            block: Vec::with_capacity(BLOCK),
            compressed,
        })
    }

    fn write_block(&mut self) -> io::Result<()> {
        let size = lz4_flex::block::compress_into(&self.block, &mut self.compressed)
            .map_err(io::Error::other)?;
        self.out.write_all(&(size as u32).to_le_bytes())?;
        self.out.write_all(&self.compressed[..size])?;
        self.block.clear();
        Ok(())
    }

    /// Writes the last block. Returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.write_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decompresses one frame, after its magic number.
pub(super) struct Decoder<R> {
    input: R,
    compressed: Vec<u8>,
    block: Vec<u8>,
    position: usize,
}

impl<R: Read> Decoder<R> {
    pub fn new(input: R) -> Self {
        Decoder {
            input,
            compressed: Vec::new(),
            block: Vec::new(),
            position: 0,
        }
    }

    /// Reads a block; false at the end of the frame.
    fn next_block(&mut self) -> io::Result<bool> {
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut size = [0; 4];
        let mut filled = 0;
        while filled < size.len() {
            match self.input.read(&mut size[filled..])? {
                // The padding of a segment may leave up to 3 zeros.
                0 if size == [0; 4] => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let size = u32::from_le_bytes(size) as usize;
        if size == 0 {
            return Ok(false);
        }
        if size > lz4_flex::block::get_maximum_output_size(BLOCK) {
            return Err(invalid(format!(
                "damaged LZ4 frame: a block of {size} bytes"
            )));
        }
        self.compressed.resize(size, 0);
        self.input.read_exact(&mut self.compressed)?;
        self.block.resize(BLOCK, 0);
        let count = lz4_flex::block::decompress_into(&self.compressed, &mut self.block)
            .map_err(|error| invalid(format!("damaged LZ4 block: {error}")))?;
        self.block.truncate(count);
        self.position = 0;
        Ok(true)
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let rest = &self.block[self.position..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new()).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn several_blocks_and_padding_round_trip() {
        let bytes: Vec<u8> = (0..BLOCK + 12_345).map(|i| (i / 7 * 31) as u8).collect();
        for padding in 0..8 {
            let mut frame = encode(&bytes);
            frame.extend(vec![0; padding]);
            let mut back = Vec::new();
            Decoder::new(&frame[4..]).read_to_end(&mut back).unwrap();
            assert!(back == bytes);
        }
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let frame = encode(b"hello hello hello hello");
        let mut back = Vec::new();
        assert!(
            Decoder::new(&frame[4..frame.len() - 1])
                .read_to_end(&mut back)
                .is_err()
        );
    }
}
