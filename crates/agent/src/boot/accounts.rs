//! The unprivileged user of an image whose user is root: its lines in /etc/passwd and /etc/group, and its home
//! directory. Programs run without them, but do not know their own name.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::Path;

use crate::user::{UNPRIVILEGED_HOME, UNPRIVILEGED_NAME, User};

/// Adds the user below `root`, unless programs run as a user of the image. Errors are ignored: a program of an
/// image without /etc asks nothing of it.
pub fn add_unprivileged(image_user: &str, root: &Path) {
    let Ok(user) = User::of_programs(image_user, root) else {
        return; // Reported by `POST /execute`.
    };
    if user.is_known(root) {
        return;
    }
    let (uid, gid) = (user.uid, user.gid);
    append(
        &root.join("etc/passwd"),
        &format!("{UNPRIVILEGED_NAME}:x:{uid}:{gid}::{UNPRIVILEGED_HOME}:/bin/sh"),
    );
    append(
        &root.join("etc/group"),
        &format!("{UNPRIVILEGED_NAME}:x:{gid}:"),
    );
    let home = root.join(UNPRIVILEGED_HOME.trim_start_matches('/'));
    if fs::create_dir_all(&home).is_ok() {
        let _ = chown(&home, Some(uid), Some(gid));
    }
}

/// Appends a line that the file does not have yet.
fn append(path: &Path, line: &str) {
    let before = fs::read(path).unwrap_or_default();
    if before
        .split(|byte| *byte == b'\n')
        .any(|known| known == line.as_bytes())
    {
        return;
    }
    let break_line = if before.last().is_none_or(|last| *last == b'\n') {
        ""
    } else {
        "\n"
    };
    let _ = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{break_line}{line}\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn image(passwd: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        root
    }

    #[test]
    fn the_user_gets_its_lines_and_a_home() {
        let root = image("root:x:0:0:root:/root:/bin/bash");
        for _ in 0..2 {
            add_unprivileged("", root.path());
        }
        let read = |file| fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!(
            read("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\ncloude:x:1000:1000::/home/cloude:/bin/sh\n"
        );
        assert_eq!(read("etc/group"), "cloude:x:1000:\n");
        let home = root.path().join("home/cloude").metadata().unwrap();
        assert_eq!((home.uid(), home.gid()), (1000, 1000));
    }

    #[test]
    fn an_image_with_such_a_user_stays_as_it_is() {
        let passwd = "root:x:0:0:::\nnode:x:1000:1000::/home/node:/bin/bash\n";
        let root = image(passwd);
        add_unprivileged("", root.path());
        add_unprivileged("node", root.path());
        let read = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
        assert_eq!(read, passwd);
        assert!(!root.path().join("home").exists());
    }
}
