//! Sparse files: the old GNU form and GNU's PAX forms 0.0, 0.1 and 1.0 (GNU tar manual, "Storing
//! Sparse Files").

use super::display::display_path;
use super::number;

/// A segment of a sparse file that the archive stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub len: u64,
}

/// The segments of a sparse file, and its size with holes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    pub segments: Vec<Segment>,
    pub real_size: u64,
}

impl SparseMap {
    /// Checks that the segments are in order, within the file, and have as many bytes as are stored.
    pub fn new(segments: Vec<Segment>, real_size: u64, stored: u64) -> Result<SparseMap, String> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for segment in &segments {
            let next = segment.offset.checked_add(segment.len);
            match next {
                Some(next) if segment.offset >= end && next <= real_size => end = next,
                _ => {
                    return Err(format!(
                        "its sparse map has a segment of {} bytes at {} that overlaps another or leaves \
                         the file of {real_size} bytes",
                        segment.len, segment.offset
                    ));
                }
            }
            sum += segment.len;
        }
        if sum != stored {
            return Err(format!(
                "its sparse map places {sum} bytes and the archive stores {stored}"
            ));
        }
        Ok(SparseMap {
            segments,
            real_size,
        })
    }
}

/// One entry of the old GNU map; an empty one ends it.
pub(crate) fn old_gnu_segment(header: &tar::GnuSparseHeader) -> Result<Option<Segment>, String> {
    if header.offset[0] == 0 || header.numbytes[0] == 0 {
        return Ok(None);
    }
    let read = |bytes| number::field(bytes).and_then(|value| u64::try_from(value).ok());
    match (read(&header.offset), read(&header.numbytes)) {
        (Some(offset), Some(len)) => Ok(Some(Segment { offset, len })),
        _ => Err("its sparse map has a field that is not a number".to_owned()),
    }
}

/// The `GNU.sparse.*` records of a PAX header.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    real_size: Option<u64>,
    /// Alternating offsets and lengths, in forms 0.0 and 0.1.
    pub map: Vec<u64>,
}

/// The place of the map of a sparse file in a PAX form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PaxForm {
    /// 0.0 and 0.1: in the header.
    InHeader {
        real_size: u64,
        segments: Vec<Segment>,
    },
    /// 1.0: before the data.
    BeforeData { real_size: u64 },
}

impl PaxSparse {
    /// Stores a record if its keyword starts with `GNU.sparse.`. False for others.
    pub fn record(&mut self, keyword: &[u8], value: &[u8]) -> Result<bool, String> {
        let Some(keyword) = keyword.strip_prefix(b"GNU.sparse.") else {
            return Ok(false);
        };
        match keyword {
            b"major" => self.major = Some(unsigned(value)?),
            b"minor" => self.minor = Some(unsigned(value)?),
            b"name" if value.contains(&0) => {
                return Err("its PAX record `GNU.sparse.name` contains a NUL".to_owned());
            }
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.real_size = Some(unsigned(value)?),
            b"numblocks" => {}
            b"offset" if self.map.len().is_multiple_of(2) => self.map.push(unsigned(value)?),
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.map.push(unsigned(value)?),
            b"map" => {
                self.map = value
                    .split(|byte| *byte == b',')
                    .filter(|number| !number.is_empty())
                    .map(unsigned)
                    .collect::<Result<_, _>>()?;
            }
            _ => {
                let keyword = display_path(keyword);
                return Err(format!(
                    "its PAX record `GNU.sparse.{keyword}` is unknown or misplaced"
                ));
            }
        }
        Ok(true)
    }

    /// The form; none if the file is not sparse.
    pub fn form(&self) -> Result<Option<PaxForm>, String> {
        let missing = || "its PAX header has a sparse map and lacks GNU.sparse.size".to_owned();
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0)) {
            (0, 0 | 1) if self.map.is_empty() && self.real_size.is_none() => Ok(None),
            (0, 0 | 1) => {
                if !self.map.len().is_multiple_of(2) {
                    return Err("its sparse map has an offset without a length".to_owned());
                }
                let segments = segments(&self.map);
                Ok(Some(PaxForm::InHeader {
                    real_size: self.real_size.ok_or_else(missing)?,
                    segments,
                }))
            }
            (1, 0) => Ok(Some(PaxForm::BeforeData {
                real_size: self.real_size.ok_or_else(missing)?,
            })),
            (major, minor) => Err(format!(
                "it is a sparse file in PAX form {major}.{minor}; supported are forms 0.0, 0.1 and 1.0"
            )),
        }
    }
}

/// Pairs offsets with lengths.
pub(crate) fn segments(numbers: &[u64]) -> Vec<Segment> {
    numbers
        .chunks_exact(2)
        .map(|pair| Segment {
            offset: pair[0],
            len: pair[1],
        })
        .collect()
}

fn unsigned(value: &[u8]) -> Result<u64, String> {
    number::decimal(value)
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| "a number of its sparse map does not fit 63 bits".to_owned())
}

/// Reads the map of form 1.0 from the start of the data: decimal numbers, one per line, padded to whole blocks. The
/// first is the number of segments. `block` returns the next 512 bytes.
pub(crate) fn map_before_data<E: From<String>>(
    max_segments: u64,
    mut too_many: impl FnMut() -> E,
    mut block: impl FnMut() -> Result<[u8; 512], E>,
) -> Result<Vec<Segment>, E> {
    let mut numbers = Vec::new();
    let mut wanted = None::<u64>;
    let mut line = Vec::new();
    while wanted.is_none_or(|wanted| (numbers.len() as u64) < wanted) {
        for byte in block()? {
            if wanted.is_some_and(|wanted| numbers.len() as u64 == wanted) {
                break;
            }
            if byte != b'\n' {
                // 63 bits are 19 decimal digits.
                if line.len() == 19 {
                    return Err("a number of its sparse map is too long".to_owned().into());
                }
                line.push(byte);
                continue;
            }
            let number = unsigned(&line)?;
            line.clear();
            match wanted {
                Some(_) => numbers.push(number),
                None if number > max_segments => return Err(too_many()),
                None => wanted = Some(number * 2),
            }
        }
    }
    Ok(segments(&numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_must_be_in_order_within_the_file_and_add_up() {
        let segment = |offset, len| Segment { offset, len };
        assert!(SparseMap::new(vec![segment(0, 4), segment(8, 4)], 12, 8).is_ok());
        assert!(SparseMap::new(vec![segment(0, 4), segment(2, 4)], 12, 8).is_err());
        assert!(SparseMap::new(vec![segment(8, 4), segment(0, 4)], 12, 8).is_err());
        assert!(SparseMap::new(vec![segment(10, 4)], 12, 4).is_err());
        assert!(SparseMap::new(vec![segment(u64::MAX, 4)], 12, 4).is_err());
        assert!(SparseMap::new(vec![segment(0, 4)], 12, 5).is_err());
    }
}
