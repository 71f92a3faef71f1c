//! PAX extended headers (POSIX.1-2017, pax, "pax Extended Header").

use super::display::display_path;
use super::number;
use super::sparse::PaxSparse;

/// The records of one extended header, for the entry that follows it.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// Seconds since 1970, rounded down.
    pub mtime: Option<i64>,
    pub sparse: PaxSparse,
    /// It has a `security.capability` attribute.
    pub capability: bool,
    /// Number of other extended attributes.
    pub xattrs: u64,
}

/// A keyword and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits a header's body into its records.
pub(crate) fn records(mut body: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let bad = || "a PAX record is not of the form `length keyword=value`".to_owned();
        let space = body
            .iter()
            .take(20)
            .position(|byte| *byte == b' ')
            .ok_or_else(bad)?;
        let length = number::decimal(&body[..space]).ok_or_else(bad)?;
        let length = usize::try_from(length).map_err(|_| bad())?;
        if length <= space + 1 || length > body.len() {
            return Err(format!(
                "a PAX record has length {length}, and {} bytes are left in its header",
                body.len()
            ));
        }
        let record = body[space + 1..length]
            .strip_suffix(b"\n")
            .ok_or_else(bad)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(bad)?;
        if equals == 0 {
            return Err(bad());
        }
        records.push((&record[..equals], &record[equals + 1..]));
        body = &body[length..];
    }
    Ok(records)
}

impl Pax {
    /// Reads the body of an extended header (type flag `x`).
    pub fn parse(body: &[u8]) -> Result<Pax, String> {
        let mut pax = Pax::default();
        for (keyword, value) in records(body)? {
            pax.record(keyword, value)?;
        }
        Ok(pax)
    }

    fn record(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), String> {
        if self.sparse.record(keyword, value)? {
            return Ok(());
        }
        match keyword {
            b"path" => self.path = text(keyword, value)?,
            b"linkpath" => self.linkpath = text(keyword, value)?,
            b"size" => self.size = numeric(keyword, value, number::decimal)?,
            b"uid" => self.uid = numeric(keyword, value, number::decimal)?,
            b"gid" => self.gid = numeric(keyword, value, number::decimal)?,
            b"mtime" => self.mtime = numeric(keyword, value, number::seconds)?,
            b"SCHILY.xattr.security.capability" => self.capability = true,
            // LIBARCHIVE.xattr records repeat these attributes and are not counted.
            _ if keyword.starts_with(b"SCHILY.xattr.") => self.xattrs += 1,
            // User names, access times, comments: newc has no fields for them.
            _ => {}
        }
        Ok(())
    }
}

/// An empty value removes an earlier one.
fn text(keyword: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if value.contains(&0) {
        let keyword = String::from_utf8_lossy(keyword);
        return Err(format!("its PAX record `{keyword}` contains a NUL"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn numeric(
    keyword: &[u8],
    value: &[u8],
    parse: fn(&[u8]) -> Option<i64>,
) -> Result<Option<i64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let number = parse(value).ok_or_else(|| {
        let keyword = String::from_utf8_lossy(keyword);
        format!("its PAX record `{keyword}` is not a number of 64 bits")
    })?;
    Ok(Some(number))
}

/// Checks a global header (type flag `g`). One with a comment alone, as `git archive` writes, changes nothing. Others
/// change all later entries, and tar readers disagree on how.
pub(crate) fn check_global(body: &[u8]) -> Result<(), String> {
    for (keyword, _) in records(body)? {
        if keyword != b"comment" {
            let keyword = display_path(keyword);
            return Err(format!(
                "a global PAX header sets `{keyword}` for all entries, which is not supported; \
                 write the archive without global headers"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let pax = Pax::parse(b"14 path=a\nb=c\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb=c"[..]));
    }

    #[test]
    fn the_last_record_wins_and_an_empty_one_resets() {
        let pax = Pax::parse(b"9 uid=12\n9 uid=34\n9 gid=12\n7 gid=\n").unwrap();
        assert_eq!((pax.uid, pax.gid), (Some(34), None));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for body in [
            &b"99 path=a\n"[..],
            b"5 path=a\n",
            b"0 path=a\n",
            b"path=a\n",
            b"-9 path=a\n",
            b"10 path=ab",
        ] {
            assert!(Pax::parse(body).is_err(), "{}", body.escape_ascii());
        }
    }
}
