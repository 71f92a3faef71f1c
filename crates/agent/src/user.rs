//! Resolves the user of a program in the image's /etc/passwd and /etc/group.

use std::path::Path;

/// The uid of programs where the image's user is root.
const UNPRIVILEGED_UID: u32 = 1000;
/// Its name and home directory, unless the image has a user with this uid.
pub const UNPRIVILEGED_NAME: &str = "cloude";
pub const UNPRIVILEGED_HOME: &str = "/home/cloude";

/// Ids, name and home directory of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name in /etc/passwd; empty if it has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary included.
    pub groups: Vec<u32>,
    /// Home directory, `/` if /etc/passwd has none.
    pub home: String,
}

/// The user does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// A name that is not in /etc/passwd.
    #[error("the user {0:?} is not in the image's /etc/passwd: name one that is, or a numeric id")]
    UnknownUser(String),
    /// A name that is not in /etc/group.
    #[error("the group {0:?} is not in the image's /etc/group: name one that is, or a numeric id")]
    UnknownGroup(String),
}

impl User {
    /// Looks up an OCI `User`: `user`, `uid`, `user:group` or `uid:gid`; empty is root. An explicit group replaces
    /// the primary group and all supplementary groups, as in container engines.
    pub fn look_up(spec: &str, root: &Path) -> Result<User, UserError> {
        let [passwd, group] = accounts(root);
        resolve(spec, &passwd, &group)
    }

    /// The user of programs that ask for none: the image's, or an unprivileged one if that is root.
    pub fn of_programs(spec: &str, root: &Path) -> Result<User, UserError> {
        let [passwd, group] = accounts(root);
        let user = resolve(spec, &passwd, &group)?;
        if user.uid != 0 {
            return Ok(user);
        }
        if has(UNPRIVILEGED_UID, &passwd) {
            return resolve(&UNPRIVILEGED_UID.to_string(), &passwd, &group);
        }
        Ok(User {
            name: UNPRIVILEGED_NAME.into(),
            uid: UNPRIVILEGED_UID,
            gid: UNPRIVILEGED_UID,
            groups: vec![UNPRIVILEGED_UID],
            home: UNPRIVILEGED_HOME.into(),
        })
    }

    /// True for every user but the unprivileged one of [`User::of_programs`] that the image does not have yet.
    pub fn is_known(&self, root: &Path) -> bool {
        let [passwd, _] = accounts(root);
        self.name != UNPRIVILEGED_NAME || has(self.uid, &passwd)
    }

    /// Root, whatever the image has.
    pub fn root() -> User {
        User {
            name: "root".into(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/root".into(),
        }
    }
}

fn accounts(root: &Path) -> [String; 2] {
    ["etc/passwd", "etc/group"].map(|file| {
        let bytes = std::fs::read(root.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn has(uid: u32, passwd: &str) -> bool {
    passwd
        .lines()
        .filter_map(PasswdEntry::parse)
        .any(|entry| entry.uid == uid)
}

fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (name, group_name) = match spec.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let entry = passwd
        .lines()
        .filter_map(PasswdEntry::parse)
        .find(|entry| entry.matches(name));
    let (uid, own_gid, login, home) = match entry {
        Some(entry) => (entry.uid, entry.gid, entry.name, entry.home),
        None if name == "0" || name == "root" => (0, 0, "root", "/root"),
        None => match name.parse() {
            Ok(uid) => (uid, 0, "", "/"),
            Err(_) => return Err(UserError::UnknownUser(name.to_owned())),
        },
    };
    let (gid, groups) = match group_name {
        Some(group_name) => {
            let gid = find_group(group_name, group)?;
            (gid, vec![gid])
        }
        None => (own_gid, groups_of(login, own_gid, group)),
    };
    let home = if home.is_empty() { "/" } else { home };
    Ok(User {
        name: login.to_owned(),
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// `name:password:uid:gid:gecos:home:shell` (passwd(5)).
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry {
            name,
            uid,
            gid,
            home,
        })
    }

    fn matches(&self, wanted: &str) -> bool {
        self.name == wanted || wanted.parse() == Ok(self.uid)
    }
}

/// `name:password:gid:member,member` (group(5)).
fn group_entries(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, UserError> {
    group_entries(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))
}

fn groups_of(login: &str, own_gid: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![own_gid];
    for (_, gid, members) in group_entries(group) {
        let member = !login.is_empty() && members.split(',').any(|member| member == login);
        if member && !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# odd line\nann:x:1000:100:Ann:/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nvideo:x:44:bob,ann\naudio:x:29:joanne\n";

    #[test]
    fn empty_is_root() {
        let user = resolve("", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (0, 0, "/root"));
    }

    #[test]
    fn a_name_has_its_groups_and_home() {
        let user = resolve("ann", PASSWD, GROUP).unwrap();
        let expected = User {
            name: "ann".into(),
            uid: 1000,
            gid: 100,
            groups: vec![100, 44],
            home: "/home/ann".into(),
        };
        assert_eq!(user, expected);
        assert_eq!(resolve("1000", PASSWD, GROUP).unwrap(), expected);
    }

    #[test]
    fn an_explicit_group_replaces_the_users_groups() {
        let user = resolve("ann:audio", PASSWD, GROUP).unwrap();
        assert_eq!((user.gid, user.groups), (29, vec![29]));
        let user = resolve("1000:7", PASSWD, GROUP).unwrap();
        assert_eq!((user.gid, user.groups), (7, vec![7]));
    }

    #[test]
    fn an_unknown_uid_runs_in_group_0_with_home_slash() {
        let user = resolve("4242", PASSWD, GROUP).unwrap();
        assert_eq!(
            user,
            User {
                name: String::new(),
                uid: 4242,
                gid: 0,
                groups: vec![0],
                home: "/".into()
            }
        );
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(
            resolve("eve", PASSWD, GROUP),
            Err(UserError::UnknownUser("eve".into()))
        );
        assert_eq!(
            resolve("ann:eve", PASSWD, GROUP),
            Err(UserError::UnknownGroup("eve".into()))
        );
    }

    #[test]
    fn root_needs_no_etc_passwd() {
        for spec in ["", "0", "root"] {
            assert_eq!(resolve(spec, "", "").unwrap(), User::root());
        }
    }

    #[test]
    fn programs_of_an_image_whose_user_is_root_are_unprivileged() {
        let image = tempfile::tempdir().unwrap();
        for spec in ["", "root", "0:0"] {
            let user = User::of_programs(spec, image.path()).unwrap();
            assert_eq!(
                (user.uid, user.groups, user.name.as_str()),
                (1000, vec![1000], "cloude")
            );
        }
        let user = User::of_programs("4242", image.path()).unwrap();
        assert_eq!(user.uid, 4242);
    }

    #[test]
    fn the_unprivileged_user_is_the_images_if_it_has_the_uid() {
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir(image.path().join("etc")).unwrap();
        std::fs::write(image.path().join("etc/passwd"), PASSWD).unwrap();
        std::fs::write(image.path().join("etc/group"), GROUP).unwrap();
        let user = User::of_programs("", image.path()).unwrap();
        assert_eq!(user, User::look_up("ann", image.path()).unwrap());
    }
}
