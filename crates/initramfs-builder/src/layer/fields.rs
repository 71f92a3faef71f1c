//! The fields of a header, checked.

use tar::Header;

use super::context::Context;
use super::display::display_path;
use super::entry::Device;
use super::error::LayerError;
use super::number;
use super::pax::Pax;
use crate::limits::LimitExceeded;

pub(super) const BLOCK: usize = 512;

/// Errors of an entry are made as text where they are found, and get the entry's name on the way up.
pub(super) enum Problem {
    Text(String),
    Layer(LayerError),
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Text(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::Text(text.to_owned())
    }
}

impl From<LayerError> for Problem {
    fn from(error: LayerError) -> Self {
        Problem::Layer(error)
    }
}

impl From<LimitExceeded> for Problem {
    fn from(error: LimitExceeded) -> Self {
        Problem::Layer(error.into())
    }
}

pub(super) fn truncated() -> Problem {
    "the layer ends in the middle of it".into()
}

/// From the end of data to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

pub(super) fn signed(field: &[u8], name: &str) -> Result<i64, Problem> {
    number::field(field)
        .ok_or_else(|| format!("the {name} in its header is no number that fits 64 bits").into())
}

pub(super) fn unsigned(field: &[u8], name: &str) -> Result<u64, Problem> {
    let value = signed(field, name)?;
    u64::try_from(value)
        .map_err(|_| format!("the {name} in its header is negative: {value}").into())
}

/// What the header or its PAX record says the stored size is. Archives that need the record leave
/// the header's field 0; where both speak and differ, readers would see different archives.
pub(super) fn stored_size(header: u64, pax: &Pax) -> Result<u64, Problem> {
    let Some(size) = pax.size else {
        return Ok(header);
    };
    let size =
        u64::try_from(size).map_err(|_| format!("its PAX record `size` is negative: {size}"))?;
    if header != 0 && header != size {
        return Err(format!(
            "its header says that it has {header} bytes and its PAX record says {size}; \
             such an archive reads differently everywhere"
        )
        .into());
    }
    Ok(size)
}

/// An owner that Linux has: -1 means "leave as it is" to chown(2).
pub(super) fn owner(pax: Option<i64>, field: &[u8], name: &str) -> Result<u32, Problem> {
    let value = match pax {
        Some(value) => value,
        None => signed(field, name)?,
    };
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(format!("its {name} is {value}; Linux has 0 to 4294967294").into()),
    }
}

pub(super) fn device(header: &Header, block: bool) -> Result<Device, Problem> {
    let (major, minor) = match (header.as_gnu(), header.as_ustar()) {
        (Some(gnu), _) => (&gnu.dev_major, &gnu.dev_minor),
        (_, Some(ustar)) => (&ustar.dev_major, &ustar.dev_minor),
        _ => return Err("it is a device in an archive whose format has no device numbers".into()),
    };
    let (major, minor) = (
        unsigned(major, "device major")?,
        unsigned(minor, "device minor")?,
    );
    if major > 0xfff || minor > 0xf_ffff {
        return Err(format!(
            "it is device {major}:{minor}; Linux has majors to 4095 and minors to 1048575"
        )
        .into());
    }
    Ok(Device {
        block,
        major: major as u32,
        minor: minor as u32,
    })
}

/// Cleans a path as if it stood in the root: no empty and no `.` components, and `..` takes the one
/// before it away or, in the root, nothing. Checks its lengths.
pub(super) fn clean(path: &[u8], context: &Context) -> Result<Vec<u8>, Problem> {
    let limits = context.budget.limits();
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            name => {
                check_length(
                    name,
                    limits.max_name_bytes.min(255),
                    "a file name",
                    "max_name_bytes",
                )?;
                parts.push(name);
            }
        }
    }
    let path = parts.join(&b'/');
    check_length(
        &path,
        limits.max_path_bytes.min(4095),
        "a path",
        "max_path_bytes",
    )?;
    Ok(path)
}

pub(super) fn check_length(
    bytes: &[u8],
    limit: u64,
    what: &'static str,
    field: &'static str,
) -> Result<(), Problem> {
    let length = bytes.len() as u64;
    if length <= limit {
        return Ok(());
    }
    let start = display_path(&bytes[..bytes.len().min(64)]);
    Err(LimitExceeded::NameBytes {
        what,
        length,
        limit,
        field,
        start,
    }
    .into())
}
