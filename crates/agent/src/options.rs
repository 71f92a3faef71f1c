//! The agent as an ordinary process: the same server and executions, without the boot of a guest. For development
//! and tests. It needs root, for namespaces.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::boot::mounts;
use crate::execute::{Environment, Template, cgroup};
use crate::http::{self, api::Api};

const USAGE: &str = "\
cloude-agent is PID 1 of a micro-VM. As an ordinary process it serves the same API:

  cloude-agent --serve-unix PATH --token-file FILE --work-dir DIR [--image-config FILE]
               [--hide DIR] [--template] [--disk]

  --serve-unix PATH     listen on a Unix socket, made at PATH
  --token-file FILE     the bearer token of requests
  --work-dir DIR        where files of programs are written; chowned to the program's user
  --image-config FILE   environment and user of programs (image.json)
  --hide DIR            programs see DIR empty
  --template            accept POST /warm; execute with an identity, of which only the token is applied
  --disk                a mount namespace with a tmpfs on DIR of --work-dir and on /tmp, for disk_bytes

It needs root, to make namespaces.";

#[derive(Default)]
struct Options {
    unix: Option<PathBuf>,
    token_file: Option<PathBuf>,
    work_dir: Option<PathBuf>,
    image_config: Option<PathBuf>,
    hide: Option<PathBuf>,
    template: bool,
    disk: bool,
}

/// Serves as the command line demands. Returns the exit code 0 for --help, else 2 after an error.
pub fn run() -> i32 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| matches!(argument.as_str(), "--help" | "-h"))
    {
        println!("{USAGE}");
        return 0;
    }
    if arguments.iter().any(|argument| argument == "--version") {
        println!("cloude-agent {}", env!("CARGO_PKG_VERSION"));
        return 0;
    }
    match parse(&arguments).and_then(|options| serve(&options)) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("cloude-agent: {error}");
            2
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let flag = match name.as_str() {
            "--template" => Some(&mut options.template),
            "--disk" => Some(&mut options.disk),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            continue;
        }
        let value = rest
            .next()
            .ok_or_else(|| format!("{name} needs a value\n\n{USAGE}"))?;
        match name.as_str() {
            "--serve-unix" => options.unix = Some(value.into()),
            "--token-file" => options.token_file = Some(value.into()),
            "--work-dir" => options.work_dir = Some(value.into()),
            "--image-config" => options.image_config = Some(value.into()),
            "--hide" => options.hide = Some(value.into()),
            _ => return Err(format!("unknown option {name}\n\n{USAGE}")),
        }
    }
    Ok(options)
}

fn serve(options: &Options) -> Result<std::convert::Infallible, String> {
    let needed = |path: &Option<PathBuf>, name: &str| {
        path.clone()
            .ok_or_else(|| format!("{name} is missing\n\n{USAGE}"))
    };
    let socket = needed(&options.unix, "--serve-unix")?;
    let token_file = needed(&options.token_file, "--token-file")?;
    let work_dir = needed(&options.work_dir, "--work-dir")?;
    let token = std::fs::read_to_string(&token_file)
        .map_err(|error| format!("{}: {error}", token_file.display()))?;
    let image = match &options.image_config {
        Some(path) => {
            let bytes =
                std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            serde_json::from_slice(&bytes)
                .map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Default::default(),
    };
    if options.disk {
        own_disk(&work_dir)?;
    }
    let cgroups = cgroup::find_roots();
    if let Some(roots) = &cgroups {
        cgroup::enable_controllers(&roots.unified);
    }
    let environment = Environment {
        work_dir,
        image,
        tmp: options.disk.then(|| PathBuf::from("/tmp")),
        hidden: options.hide.clone(),
        cgroups,
        console: None,
        template: options.template.then(|| Template {
            boot_id: None,
            // Next to the work directory: several agents run on one machine.
            hook_dir: options
                .work_dir
                .as_ref()
                .map(|path| path.with_extension("hook")),
        }),
    };
    let user = environment.user().map_err(|error| error.to_string())?;
    std::os::unix::fs::chown(&environment.work_dir, Some(user.uid), Some(user.gid))
        .map_err(|error| format!("{}: {error}", environment.work_dir.display()))?;
    let listener =
        UnixListener::bind(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    http::ignore_broken_pipes();
    http::serve(
        &[listener.into()],
        &Arc::new(Api::new(Some(token.trim().to_owned()), environment)),
    )
}

/// Gives the agent and its programs a work directory and a /tmp of their own, as in a VM.
fn own_disk(work_dir: &Path) -> Result<(), String> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .map_err(|errno| format!("a mount namespace: {errno}"))?;
    let staging = work_dir.with_extension("disk");
    mounts::disk(&staging, work_dir, Some(Path::new("/tmp")))
}
