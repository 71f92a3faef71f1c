//! The walls that depend on the host's kernel and on the privileges of the caller.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of the jail that some hosts cannot give. The parts that every host can are not listed: no capabilities,
/// `no_new_privs`, resource limits, not dumpable, an empty environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    /// Own user, mount, PID, network, IPC, UTS and cgroup namespaces.
    Namespaces,
    /// A user and a group on the host that no other live worker has. Needs [`Wall::Namespaces`].
    Uid,
    /// An empty root directory. Needs [`Wall::Namespaces`].
    Root,
    /// Landlock: no path can be opened, no TCP port bound or connected.
    Landlock,
    /// System-call filters, one for each kind of thread.
    Seccomp,
    /// A cgroup with limits of memory, threads and CPU time.
    Cgroup,
    /// No other process on the same core's second hardware thread (PR_SCHED_CORE).
    CoreScheduling,
}

impl Wall {
    /// All of them.
    pub const ALL: [Wall; 7] = [
        Wall::Namespaces,
        Wall::Uid,
        Wall::Root,
        Wall::Landlock,
        Wall::Seccomp,
        Wall::Cgroup,
        Wall::CoreScheduling,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Wall::Namespaces => "namespaces",
            Wall::Uid => "uid",
            Wall::Root => "root",
            Wall::Landlock => "landlock",
            Wall::Seccomp => "seccomp",
            Wall::Cgroup => "cgroup",
            Wall::CoreScheduling => "core_scheduling",
        }
    }

    /// How a host that lacks it gets it.
    pub fn fix(self) -> &'static str {
        match self {
            Wall::Namespaces | Wall::Root => {
                "allow user namespaces to the user of clouded (user.max_user_namespaces, \
                 kernel.apparmor_restrict_unprivileged_userns), or start clouded as root"
            }
            Wall::Uid => {
                "start clouded as root: only CAP_SETUID maps a user of its own for each VM"
            }
            Wall::Landlock => "use Linux 5.13 or later with `landlock` among the LSMs (lsm=)",
            Wall::Seccomp => "use a kernel with CONFIG_SECCOMP_FILTER",
            Wall::Cgroup => {
                "start clouded as root, or in a systemd unit with Delegate=yes (cgroup 2, with the controllers memory, \
                 pids and cpu)"
            }
            Wall::CoreScheduling => {
                "use Linux 5.14 or later with CONFIG_SCHED_CORE, or switch SMT off"
            }
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No wall has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no wall of a jail; there are {names}", names = names(&Wall::ALL))]
pub struct UnknownWall(String);

impl FromStr for Wall {
    type Err = UnknownWall;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Wall::ALL.into_iter().find(|wall| wall.name() == text);
        found.ok_or_else(|| UnknownWall(text.to_owned()))
    }
}

fn names(walls: &[Wall]) -> String {
    let names: Vec<_> = walls.iter().map(|wall| wall.name()).collect();
    names.join(", ")
}

/// A set of walls. Its text form separates the names by commas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walls(u8);

impl Walls {
    /// No wall.
    pub const NONE: Walls = Walls(0);

    /// True if the set holds `wall`.
    pub fn has(self, wall: Wall) -> bool {
        self.0 & bit(wall) != 0
    }

    /// The set with `wall`.
    pub fn with(self, wall: Wall) -> Self {
        Walls(self.0 | bit(wall))
    }

    /// The set without `wall` and without the walls that need it.
    pub fn without(self, wall: Wall) -> Self {
        let without = |walls: Self, wall| Walls(walls.0 & !bit(wall));
        match wall {
            Wall::Namespaces => [Wall::Uid, Wall::Root, Wall::Namespaces]
                .into_iter()
                .fold(self, without),
            wall => without(self, wall),
        }
    }

    /// Its walls.
    pub fn iter(self) -> impl Iterator<Item = Wall> {
        Wall::ALL.into_iter().filter(move |wall| self.has(*wall))
    }
}

fn bit(wall: Wall) -> u8 {
    1 << wall as u8
}

impl FromIterator<Wall> for Walls {
    fn from_iter<I: IntoIterator<Item = Wall>>(walls: I) -> Self {
        walls.into_iter().fold(Walls::NONE, Walls::with)
    }
}

/// A list of names.
impl Serialize for Walls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Walls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Wall>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names(&self.iter().collect::<Vec<_>>()))
    }
}

impl FromStr for Walls {
    type Err = UnknownWall;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::parse)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_text_form() {
        let walls: Walls = Wall::ALL.into_iter().collect();
        assert_eq!(walls.to_string().parse(), Ok(walls));
        assert_eq!("".parse(), Ok(Walls::NONE));
        let error = "moat".parse::<Walls>().unwrap_err().to_string();
        assert!(
            error.contains("moat") && error.contains("landlock"),
            "{error}"
        );
    }

    #[test]
    fn walls_that_need_namespaces_go_with_them() {
        let walls: Walls = [Wall::Namespaces, Wall::Root, Wall::Seccomp]
            .into_iter()
            .collect();
        assert_eq!(walls.without(Wall::Namespaces).to_string(), "seccomp");
        assert_eq!(walls.without(Wall::Root).to_string(), "namespaces, seccomp");
    }
}
