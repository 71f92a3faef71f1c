//! The command of a stage: its file, environment and working directory, and why `execve` failed.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cloude_protocol::boot::ImageConfig;

use crate::user::User;

/// PATH if neither the image nor the request sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of a program: defaults of HOME, USER and PATH, overridden by the image, overridden by the request.
pub fn environment(
    image: &ImageConfig,
    user: &User,
    request: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    all.insert("PATH".to_owned(), DEFAULT_PATH.to_owned());
    all.insert("HOME".to_owned(), user.home.clone());
    if !user.name.is_empty() {
        all.insert("USER".to_owned(), user.name.clone());
    }
    for assignment in &image.env {
        if let Some((name, value)) = assignment.split_once('=') {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    all.extend(
        request
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    all
}

/// `NAME=value` strings for `execve`. Values with a NUL byte were refused before ([`super::validate`]).
pub fn to_c_strings(environment: &BTreeMap<String, String>) -> Vec<CString> {
    environment
        .iter()
        .filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok())
        .collect()
}

/// The working directory: `requested` below `work_dir`, or as it is if absolute.
pub fn working_dir(work_dir: &Path, requested: Option<&str>) -> PathBuf {
    work_dir.join(requested.unwrap_or_default())
}

/// Looks `name` up as execvp(3) does: a name with a slash is a path, another one is searched in `path`.
pub fn look_up(name: &str, path: &str, working_dir: &Path) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let mut unusable = None;
    for directory in path.split(':') {
        let candidate = working_dir.join(directory).join(name);
        match std::fs::metadata(&candidate) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(_) => unusable = unusable.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(match unusable {
        Some(candidate) => format!("{name}: {} is not an executable file", candidate.display()),
        None => format!("{name}: not found in PATH ({path}) of the image"),
    })
}

/// The message for an `execve` of `program` that failed with `errno`.
pub fn exec_error(program: &OsStr, working_dir: &Path, errno: i32) -> String {
    let name = program.display();
    match errno {
        libc::ENOENT if working_dir.join(program).exists() => {
            format!(
                "{name}: its interpreter (of the #! line, or the dynamic loader) is not in the image"
            )
        }
        libc::ENOENT => format!("{name}: not found"),
        libc::EACCES => format!("{name}: the program's user may not execute it"),
        libc::ENOEXEC => {
            format!("{name}: neither an ELF program for x86-64 nor a script with a #! line")
        }
        libc::E2BIG => format!("{name}: arguments and environment are larger than execve takes"),
        errno => format!("{name}: {}", std::io::Error::from_raw_os_error(errno)),
    }
}

/// A NUL-terminated path. Paths with a NUL byte were refused before ([`super::validate`]).
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_overrides_the_image_and_the_default() {
        let image = ImageConfig {
            env: vec!["A=image".into(), "B=image=x".into(), "broken".into()],
            ..Default::default()
        };
        let user = User {
            name: "u".into(),
            uid: 7,
            gid: 7,
            groups: vec![],
            home: "/home/u".into(),
        };
        let all = environment(
            &image,
            &user,
            &BTreeMap::from([("A".to_owned(), "request".to_owned())]),
        );
        let expected = [
            ("A", "request"),
            ("B", "image=x"),
            ("HOME", "/home/u"),
            ("PATH", DEFAULT_PATH),
            ("USER", "u"),
        ];
        assert_eq!(
            all.iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_missing_command_names_the_path_searched() {
        let error = look_up("no-such-command", "/bin:/usr/bin", Path::new("/")).unwrap_err();
        assert_eq!(
            error,
            "no-such-command: not found in PATH (/bin:/usr/bin) of the image"
        );
    }

    #[test]
    fn a_file_that_is_not_executable_is_named() {
        let error = look_up("passwd", "/etc", Path::new("/")).unwrap_err();
        assert_eq!(error, "passwd: /etc/passwd is not an executable file");
    }

    #[test]
    fn an_empty_path_entry_is_the_working_directory() {
        assert_eq!(
            look_up("sh", "", Path::new("/bin")).unwrap(),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn the_working_directory_is_relative_to_the_work_directory() {
        let work = Path::new("/work");
        assert_eq!(working_dir(work, None), Path::new("/work/"));
        assert_eq!(working_dir(work, Some("a/b")), Path::new("/work/a/b"));
        assert_eq!(working_dir(work, Some("/tmp")), Path::new("/tmp"));
    }
}
