//! The file systems and device nodes that a Linux system expects.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Where control groups are.
pub const CGROUP: &str = "/sys/fs/cgroup";

struct Mount {
    kind: &'static str,
    path: &'static str,
    flags: MsFlags,
    options: &'static str,
    required: bool,
}

const QUIET: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const NO_NODES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// In this order: some lie in others.
const MOUNTS: [Mount; 8] = [
    Mount {
        kind: "proc",
        path: "/proc",
        flags: QUIET,
        options: "",
        required: true,
    },
    Mount {
        kind: "sysfs",
        path: "/sys",
        flags: QUIET,
        options: "",
        required: true,
    },
    Mount {
        kind: "devtmpfs",
        path: "/dev",
        flags: MsFlags::MS_NOSUID,
        options: "mode=755",
        required: true,
    },
    Mount {
        kind: "devpts",
        path: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "mode=620,gid=5,ptmxmode=666",
        required: false,
    },
    Mount {
        kind: "tmpfs",
        path: "/dev/shm",
        flags: NO_NODES,
        options: "mode=1777",
        required: true,
    },
    Mount {
        kind: "tmpfs",
        path: "/run",
        flags: NO_NODES,
        options: "mode=755",
        required: true,
    },
    Mount {
        kind: "tmpfs",
        path: "/tmp",
        flags: NO_NODES,
        options: "mode=1777",
        required: true,
    },
    Mount {
        kind: "cgroup2",
        path: CGROUP,
        flags: QUIET,
        options: "",
        required: false,
    },
];

/// Mount everything. What a kernel may lack and programs can do without is let go.
pub fn mount_all() -> Result<(), String> {
    for entry in &MOUNTS {
        if let Err(errno) = mount_one(entry)
            && entry.required
        {
            return Err(format!(
                "could not mount {} on {}: {errno}; the kernel must have it built in",
                entry.kind, entry.path
            ));
        }
    }
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    for (target, link) in links {
        if link == "/dev/ptmx" && Path::new("/dev/pts/ptmx").exists() {
            let _ = fs::remove_file(link);
        }
        let _ = symlink(target, link);
    }
    Ok(())
}

fn mount_one(entry: &Mount) -> nix::Result<()> {
    let _ = fs::create_dir_all(entry.path);
    let options = Some(entry.options).filter(|options| !options.is_empty());
    match mount(
        Some(entry.kind),
        entry.path,
        Some(entry.kind),
        entry.flags,
        options,
    ) {
        Err(Errno::EBUSY) => Ok(()), // The kernel mounted /dev itself.
        result => result,
    }
}

/// Standard input, output and error are the console's; /dev/null's on a machine without one.
pub fn open_console() {
    let open = |path| fs::OpenOptions::new().read(true).write(true).open(path);
    let Ok(console) = open("/dev/console").or_else(|_| open("/dev/null")) else {
        return;
    };
    for stream in 0..=2 {
        // SAFETY: plain system calls on plain numbers; nothing in this program owns 0 to 2.
        unsafe { libc::dup2(console.as_raw_fd(), stream) };
    }
    if console.as_raw_fd() <= 2 {
        std::mem::forget(console); // It is one of them.
    }
}

/// A file system in memory for the program's files, owned by its user.
pub fn work_dir(path: &str, (uid, gid): (u32, u32)) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("{path}: {error}"))?;
    let options = format!("mode=755,uid={uid},gid={gid}");
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        NO_NODES,
        Some(options.as_str()),
    )
    .map_err(|errno| format!("could not mount tmpfs on {path}: {errno}"))
}
