//! Resolves the image's `User` in its /etc/passwd and /etc/group.

use std::path::Path;

/// Ids and home directory of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary included.
    pub groups: Vec<u32>,
    /// Home directory, `/` if /etc/passwd has none.
    pub home: String,
}

/// The image's user does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// A name that is not in /etc/passwd.
    #[error(
        "the image's user {0:?} is not in its /etc/passwd: build the image with a user that is, or a numeric id"
    )]
    UnknownUser(String),
    /// A name that is not in /etc/group.
    #[error(
        "the image's group {0:?} is not in its /etc/group: build the image with a group that is, or a numeric id"
    )]
    UnknownGroup(String),
}

impl User {
    /// Looks up an OCI `User`: `user`, `uid`, `user:group` or `uid:gid`; empty is root. An explicit group replaces
    /// the primary group and all supplementary groups, as in container engines.
    pub fn look_up(spec: &str, root: &Path) -> Result<User, UserError> {
        let read = |file| {
            let bytes = std::fs::read(root.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        resolve(spec, &read("etc/passwd"), &read("etc/group"))
    }
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
        None => match name.parse() {
            Ok(uid) => (uid, 0, "", if uid == 0 { "/root" } else { "/" }),
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
        let user = resolve("", "", "").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups, user.home.as_str()),
            (0, 0, vec![0], "/root")
        );
    }
}
