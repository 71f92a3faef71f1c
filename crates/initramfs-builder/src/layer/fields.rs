//! Checks the fields of a tar header.

use tar::Header;

use super::blocks::Problem;
use super::context::Context;
use super::display::display_path;
use super::entry::Device;
use super::number;
use super::pax::Pax;
use crate::limits::LimitExceeded;

pub(super) fn signed(field: &[u8], name: &str) -> Result<i64, Problem> {
    number::field(field)
        .ok_or_else(|| format!("the {name} in its header is not a number of 64 bits").into())
}

pub(super) fn unsigned(field: &[u8], name: &str) -> Result<u64, Problem> {
    let value = signed(field, name)?;
    u64::try_from(value)
        .map_err(|_| format!("the {name} in its header is negative: {value}").into())
}

/// The stored size, from the PAX record or the header. Archives that need the record set the header's field to 0. If
/// both are set and differ, tar readers disagree on where the next entry is.
pub(super) fn stored_size(header: u64, pax: &Pax) -> Result<u64, Problem> {
    let Some(size) = pax.size else {
        return Ok(header);
    };
    let size =
        u64::try_from(size).map_err(|_| format!("its PAX record `size` is negative: {size}"))?;
    if header != 0 && header != size {
        return Err(format!(
            "its header has size {header} and its PAX record has size {size}; tar readers disagree on such an archive: \
             write it again with one of them"
        )
        .into());
    }
    Ok(size)
}

/// A user or group id: 0 to 4294967294, because chown(2) takes -1 as "no change".
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

/// Cleans a path as if the current directory were the root: removes empty and `.` components, and resolves `..`
/// lexically. Checks the lengths.
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
