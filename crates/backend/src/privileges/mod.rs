//! Gives up root's rights before `clouded` reads anything from a client, an image or a file of another user.

mod cgroup;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, eaccess, getgrouplist, setegid, seteuid, setgroups,
    setresgid, setresuid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities,
};

use crate::config::Config;

/// The account that root's rights are given up for, if it exists and `user` names no other.
pub const DEFAULT_USER: &str = "cloude";

/// The account that keeps root's rights.
const ROOT: &str = "root";

/// Root's rights cannot be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// `user` names no account.
    #[error(
        "the user `{0}` does not exist: create it (`useradd --system {0}`), or set `user` to another account"
    )]
    NoUser(String),
    /// A file that the server needs.
    #[error(
        "`{path}` is not accessible for the user `{user}`, as which clouded runs: {source}; move it, or change its mode or that of a folder above it"
    )]
    NotAccessible {
        path: PathBuf,
        user: String,
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot give up root's rights for the user `{user}`: {call}: {source}")]
    System {
        user: String,
        call: &'static str,
        source: io::Error,
    },
}

/// The rights of the process after [`drop_root`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It was not started as root.
    Ordinary,
    /// It was started as root, and now is this user with CAP_NET_ADMIN.
    Dropped(String),
    /// It is root, for this reason.
    Root(String),
}

/// Changes root to the account of `config.user`, with CAP_NET_ADMIN as its only capability, which TAPs, bridge and
/// firewall rules need. The state folder and the kept templates become the account's.
///
/// An account that the configuration names must exist and have access to what the server needs. Otherwise the
/// account is [`DEFAULT_USER`], and the process stays root where that does not hold.
///
/// The process must have one thread: the kernel keeps capabilities for each thread.
pub fn drop_root(config: &Config) -> Result<Rights, PrivilegesError> {
    if !Uid::effective().is_root() {
        return Ok(Rights::Ordinary);
    }
    match config.user.as_str() {
        ROOT => Ok(Rights::Root("`user` is `root`".to_owned())),
        "" => match Account::find(DEFAULT_USER) {
            Err(error) => Ok(Rights::Root(error.to_string())),
            Ok(account) => match account.check(config) {
                Err(error @ PrivilegesError::NotAccessible { .. }) => {
                    Ok(Rights::Root(error.to_string()))
                }
                checked => checked.and_then(|()| account.become_it(config)),
            },
        },
        name => {
            let account = Account::find(name)?;
            account.check(config)?;
            account.become_it(config)
        }
    }
}

struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Account {
    /// The account, with the group of /dev/kvm among its groups.
    fn find(name: &str) -> Result<Self, PrivilegesError> {
        let user = User::from_name(name)
            .ok()
            .flatten()
            .ok_or_else(|| PrivilegesError::NoUser(name.to_owned()))?;
        let mut groups = std::ffi::CString::new(name)
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok())
            .unwrap_or_default();
        groups.extend(group_of(Path::new("/dev/kvm")));
        Ok(Account {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            groups,
        })
    }

    fn failed(&self, call: &'static str) -> impl Fn(io::Error) -> PrivilegesError {
        let user = self.name.clone();
        move |source| PrivilegesError::System {
            user: user.clone(),
            call,
            source,
        }
    }

    /// Checks as this account that the server can read what it needs, then becomes root again.
    fn check(&self, config: &Config) -> Result<(), PrivilegesError> {
        let failed = |call| {
            let failed = self.failed(call);
            move |error: nix::Error| failed(error.into())
        };
        let own = nix::unistd::getgroups().map_err(failed("getgroups"))?;
        setgroups(&self.groups).map_err(failed("setgroups"))?;
        setegid(self.gid).map_err(failed("setegid"))?;
        seteuid(self.uid).map_err(failed("seteuid"))?;
        let accessible = self.check_access(config);
        seteuid(Uid::from_raw(0)).map_err(failed("seteuid"))?;
        setegid(Gid::from_raw(0)).map_err(failed("setegid"))?;
        setgroups(&own).map_err(failed("setgroups"))?;
        accessible
    }

    fn check_access(&self, config: &Config) -> Result<(), PrivilegesError> {
        let folder = AccessFlags::R_OK | AccessFlags::X_OK;
        let needs = [
            (&config.vm.worker, AccessFlags::X_OK),
            (&config.agent.binary, AccessFlags::R_OK),
            (&config.languages, folder),
            (&config.kernel, AccessFlags::R_OK),
            (&config.images.dir, folder),
        ];
        // udev lets every user open it. Where a container has none, an account that is named gives up the network.
        let tun = PathBuf::from("/dev/net/tun");
        let wants_network = config.user.is_empty() && config.network.enabled;
        let tun = wants_network.then_some((&tun, AccessFlags::R_OK | AccessFlags::W_OK));
        for (path, access) in needs.into_iter().chain(tun) {
            match eaccess(path, access) {
                // A missing file has an error of its own later.
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(error) => {
                    return Err(PrivilegesError::NotAccessible {
                        path: path.clone(),
                        user: self.name.clone(),
                        source: error.into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn become_it(&self, config: &Config) -> Result<Rights, PrivilegesError> {
        let failed = self.failed("changing the owner of the state folder");
        // Files of clouded hold programs, secrets, output and the memory of templates.
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        self.take(&config.state_dir).map_err(&failed)?;
        if let Some(dir) = config.pool.disk_dir() {
            // Below a folder that does not exist, templates could not be stored: only root may traverse it once made.
            let templates = dir.join("templates");
            if dir.is_dir() {
                self.take(&templates).map_err(&failed)?;
            }
        }
        // On some hosts only root may open it. Without it, an execution says why it fails.
        if let Err(error) = cloude_engine::open_device() {
            tracing::warn!(%error, "cannot open /dev/kvm");
        }
        // Without one, the engine says that the workers have no cgroups.
        if let Err(error) =
            cgroup::delegate(&config.state_dir, self.uid.as_raw(), self.gid.as_raw())
        {
            tracing::warn!(%error, "cannot give a cgroup to the user `{}`", self.name);
        }
        set_keep_capabilities(true)
            .map_err(|error| self.failed("PR_SET_KEEPCAPS")(error.into()))?;
        setgroups(&self.groups).map_err(|error| self.failed("setgroups")(error.into()))?;
        setresgid(self.gid, self.gid, self.gid)
            .map_err(|error| self.failed("setresgid")(error.into()))?;
        setresuid(self.uid, self.uid, self.uid)
            .map_err(|error| self.failed("setresuid")(error.into()))?;
        let network = CapabilitySet::NET_ADMIN;
        let sets = CapabilitySets {
            effective: network,
            permitted: network,
            // nft(8) gets the capability as an ambient one, which it can only be if it is inheritable.
            inheritable: network,
        };
        set_capabilities(None, sets).map_err(|error| self.failed("capset")(error.into()))?;
        configure_capability_in_ambient_set(network, true)
            .map_err(|error| self.failed("PR_CAP_AMBIENT_RAISE")(error.into()))?;
        Ok(Rights::Dropped(self.name.clone()))
    }

    /// Creates a folder of this account, and gives it what root left in it.
    fn take(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                let metadata = std::fs::symlink_metadata(&path)?;
                if metadata.is_dir() {
                    folders.push(path);
                } else {
                    self.own(&path, &metadata)?;
                }
            }
            self.own(&folder, &std::fs::symlink_metadata(&folder)?)?;
        }
        Ok(())
    }

    /// A file of another user, or with a second name elsewhere, keeps its owner.
    fn own(&self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        if metadata.uid() != 0 || (!metadata.is_dir() && metadata.nlink() > 1) {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }
}

fn group_of(path: &Path) -> Option<Gid> {
    let gid = Gid::from_raw(std::fs::metadata(path).ok()?.gid());
    // Root's own group would give access to more than the device.
    Group::from_gid(gid)
        .ok()
        .flatten()
        .filter(|group| group.gid.as_raw() != 0)
        .map(|group| group.gid)
}
