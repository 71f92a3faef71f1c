//! The boot of the guest, from the first instruction of PID 1 to the server.

pub mod accounts;
pub mod config;
pub mod identity;
pub mod modules;
pub mod mounts;
pub mod power;
pub mod settings;
pub mod shell;

use std::fs::{File, OpenOptions};
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloude_protocol::agent::{AGENT_PORT, READY_PORT};
use cloude_protocol::boot::{BOOT_CONFIG, BootConfig, DIR, IMAGE_CONFIG, ImageConfig};

use crate::execute::{Environment, Template, cgroup, seccomp};
use crate::http::{self, api::Api};
use crate::{net, vsock};

/// Sets the guest up and serves. On an error, logs it and powers off: the kernel panics if PID 1 returns.
pub fn run() -> i32 {
    power::set_panic_hook();
    let error = match start() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    power::fatal(&error)
}

fn start() -> Result<std::convert::Infallible, String> {
    mounts::mount_all()?;
    mounts::open_console();
    http::ignore_broken_pipes();
    let mut boot: BootConfig = match config::read_once(Path::new(BOOT_CONFIG))? {
        Some(boot) => boot,
        None => {
            config::from_cmdline(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())?
        }
    };
    if boot.template {
        boot.network = None; // Part of each fork's identity.
    }
    let image: ImageConfig = config::read(Path::new(IMAGE_CONFIG))?.unwrap_or_default();
    modules::load_all();
    settings::apply();
    accounts::add_unprivileged(&image.user, Path::new("/"));
    net::loopback().map_err(|error| error.to_string())?;
    identity::apply(&boot);
    if let Some(network) = &boot.network {
        net::configure(network).map_err(|error| error.to_string())?;
    }
    if boot.shell {
        return shell::run(&image);
    }
    let environment = environment(image, &boot)?;
    let listeners = listen(&boot)?;
    let token = Some(boot.token).filter(|token| !token.is_empty());
    let api = Arc::new(Api::new(token, environment));
    println!("cloude-agent: ready");
    vsock::signal_host(READY_PORT);
    http::serve(&listeners, &api)
}

fn environment(image: ImageConfig, boot: &BootConfig) -> Result<Environment, String> {
    let root = PathBuf::from(mounts::CGROUP);
    let cgroups = root.join("cgroup.procs").exists().then(|| {
        cgroup::enable_controllers(&root);
        cgroup::Roots {
            unified: root,
            pids_v1: None,
        }
    });
    let environment = Environment {
        work_dir: PathBuf::from(mounts::WORK_DIR),
        image,
        tmp: Some(PathBuf::from("/tmp")),
        hidden: Some(PathBuf::from(DIR)),
        cgroups,
        console: if boot.copy_output_to_console {
            console()
        } else {
            None
        },
        template: boot.template.then(|| Template {
            boot_id: Some(PathBuf::from(crate::identity::BOOT_ID)),
            hook_dir: None,
        }),
    };
    if boot.template {
        // Bind-mounted in each stage. An identity replaces its content.
        std::fs::copy("/proc/sys/kernel/random/boot_id", crate::identity::BOOT_ID)
            .map_err(|error| format!("{}: {error}", crate::identity::BOOT_ID))?;
    }
    // An unknown user is reported by POST /execute, which has a client to report it to.
    let user = environment.user().ok();
    // Both are built before a program waits for them.
    seccomp::filters();
    cgroup::process_limit();
    if let Some(user) = user {
        chown(mounts::WORK_DIR, Some(user.uid), Some(user.gid))
            .map_err(|error| format!("{}: {error}", mounts::WORK_DIR))?;
    }
    Ok(environment)
}

/// The console, non-blocking, for copies of the output.
fn console() -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open("/dev/console")
        .ok()
}

fn listen(boot: &BootConfig) -> Result<Vec<OwnedFd>, String> {
    let mut listeners = Vec::new();
    match vsock::listener(AGENT_PORT) {
        Ok(listener) => listeners.push(listener),
        Err(error) => {
            println!(
                "cloude-agent: cannot listen on vsock port {AGENT_PORT}: {error}; is vmw_vsock_virtio_transport missing?"
            )
        }
    }
    // A fork gets another address, and its requests over the vsock connection that was saved.
    if let Some(network) = boot.network.as_ref().filter(|_| !boot.template) {
        let address = SocketAddrV4::new(network.address, AGENT_PORT as u16);
        let listener = TcpListener::bind(address)
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
        listeners.push(listener.into());
    }
    if listeners.is_empty() {
        return Err("nothing to listen on: give the VM a vsock device or a network".into());
    }
    Ok(listeners)
}
