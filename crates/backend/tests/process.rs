//! The `clouded` binary: flags, configuration, lock, signals.

// clippy exempts test functions, not what they share.
#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

fn clouded() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clouded"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let languages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
    command.env("LANGUAGES_CONFIG_PATH", languages);
    command
}

/// A command that starts clouded, with empty files in place of kernel and agent, and a worker that ends at once.
fn startable(state: &Path, bridge: &str) -> Command {
    let file = state.join("file");
    std::fs::write(&file, "").unwrap();
    let mut command = clouded();
    command
        .args(["--listen", "127.0.0.1:0", "--state-dir"])
        .arg(state.join("state"));
    for flag in ["--kernel", "--agent"] {
        command.arg(flag).arg(&file);
    }
    command.args(["--worker", "/bin/true"]);
    command.env("BRIDGE_NAME", bridge).stderr(Stdio::piped());
    command
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for the log line with the address.
fn listening(child: &mut Child) -> String {
    let reader = BufReader::new(child.stderr.as_mut().unwrap());
    let mut seen = String::new();
    for line in reader.lines() {
        let line = line.unwrap();
        seen.push_str(&line);
        if let Some((_, address)) = line.split_once("address=") {
            return address.trim().to_owned();
        }
    }
    panic!("it ended: {seen}");
}

#[test]
fn flags_override_the_environment_and_that_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clouded.toml");
    std::fs::write(
        &file,
        "listen = '127.0.0.1:1'\nkernel = '/file'\n[images]\ndir = '/file'\n",
    )
    .unwrap();
    let output = clouded()
        .args(["--check", "--listen", "127.0.0.1:3", "--config"])
        .arg(&file)
        .env("BACKEND_SERVER_ADDR", "127.0.0.1:2")
        .env("VM_KERNEL_PATH", "/environment")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.contains("listen = \"127.0.0.1:3\""), "{text}");
    assert!(
        text.contains("kernel = \"/environment\"") && text.contains("dir = \"/file\""),
        "{text}"
    );
}

#[test]
fn an_invalid_configuration_is_refused_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let typo = dir.path().join("typo.toml");
    std::fs::write(&typo, "[vm]\nmemroy_mib = 1\n").unwrap();
    type Variables = &'static [(&'static str, &'static str)];
    let table: [(&[&str], Variables, &str); 5] = [
        (&["--config", typo.to_str().unwrap()], &[], "memroy_mib"),
        (&["--config", "/nonexistent.toml"], &[], "/nonexistent.toml"),
        (
            &["--languages", "/nonexistent"],
            &[],
            "LANGUAGES_CONFIG_PATH",
        ),
        (
            &[],
            &[("BACKEND_SERVER_ADDR", "here")],
            "BACKEND_SERVER_ADDR",
        ),
        (&[], &[("IP_RANGE", "10.0.0.0")], "IP_MASK"),
    ];
    for (flags, variables, message) in table {
        // The flag `--languages` may be given once.
        let mut command = Command::new(env!("CARGO_BIN_EXE_clouded"));
        command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command
            .arg("--check")
            .args(flags)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            stderr(&output).contains(message),
            "{message}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_missing_kernel_is_an_error_that_names_kernel_fetch() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = clouded()
        .args([
            "--kernel",
            "/nonexistent",
            "--listen",
            "127.0.0.1:0",
            "--agent",
        ])
        .arg(&file)
        .arg("--worker")
        .arg(&file)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .env("BRIDGE_NAME", "cltest3")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("kernel/fetch"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_state_folder_is_private_and_locked_until_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    // Modes as an earlier version of clouded set them.
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
    for name in ["jobs.db", "lock"] {
        std::fs::write(state.join(name), "").unwrap();
        std::fs::set_permissions(state.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    let mut first = startable(dir.path(), "cltest1").spawn().unwrap();
    let address = listening(&mut first);

    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"ok\""),
        "{answer}"
    );
    let state = dir.path().join("state");
    assert_eq!(mode(&state), 0o700);
    for entry in state.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), private, "{}", path.display());
    }

    let second = startable(dir.path(), "cltest1").output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("another clouded"),
        "{}",
        stderr(&second)
    );

    let kill = Command::new("kill")
        .arg(first.id().to_string())
        .status()
        .unwrap();
    assert!(kill.success());
    assert!(
        first.wait().unwrap().success(),
        "clouded exits with 0 after SIGTERM"
    );
}

#[test]
fn the_service_manager_hears_of_readiness_and_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let next = || {
        let mut message = [0; 512];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut clouded = startable(dir.path(), "cltest6")
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .unwrap();
    let address = listening(&mut clouded);
    assert_eq!(next().trim(), "READY=1");
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(request(&address, health).starts_with("HTTP/1.1 200"));

    Command::new("kill")
        .arg(clouded.id().to_string())
        .status()
        .unwrap();
    // The grace of the executions, 30 s, and 30 s more.
    assert_eq!(next().trim(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000");
    assert!(clouded.wait().unwrap().success());
}

#[test]
fn without_a_key_no_address_but_loopback_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let command = || startable(dir.path(), "cltest5");
    // The same on all addresses.
    let everywhere = || {
        let loopback = command();
        let mut changed = clouded();
        changed.env("BRIDGE_NAME", "cltest5").stderr(Stdio::piped());
        for argument in loopback.get_args() {
            changed.arg(match argument.to_str() {
                Some("127.0.0.1:0") => "0.0.0.0:0".as_ref(),
                _ => argument,
            });
        }
        changed
    };
    let mut refused = everywhere().spawn().unwrap();
    let log = BufReader::new(refused.stderr.take().unwrap()).lines();
    let starts_or_refuses = |line: &String| line.contains("address=") || line.contains("API key");
    let line = log.map_while(Result::ok).find(starts_or_refuses);
    if !line
        .as_ref()
        .is_some_and(|line| line.contains("clouded key create --scope admin"))
    {
        refused.kill().unwrap();
        panic!("{line:?}");
    }
    assert_eq!(refused.wait().unwrap().code(), Some(1));

    let created = command()
        .args(["key", "create", "--name", "first", "--scope", "admin"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", stderr(&created));
    let key = String::from_utf8(created.stdout).unwrap();
    let mut clouded = everywhere().spawn().unwrap();
    let address = listening(&mut clouded).replace("0.0.0.0", "127.0.0.1");
    let get = |header: &str| {
        request(
            &address,
            &format!(
                "GET /v1/keys HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n"
            ),
        )
    };
    let answer = get("");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let answer = get(&format!("authorization: Bearer {}\r\n", key.trim()));
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"first\""),
        "{answer}"
    );

    let locked = command().args(["key", "ls"]).output().unwrap();
    assert!(
        stderr(&locked).contains("cloude key"),
        "{}",
        stderr(&locked)
    );
    clouded.kill().unwrap();
    clouded.wait().unwrap();
}

#[test]
fn after_sigkill_the_next_clouded_knows_the_execution() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("images");
    let command = || {
        let mut command = startable(dir.path(), "cltest2");
        command
            .arg("--images")
            .arg(&images)
            .env("CLOUDE_IMAGES_AUTO_BUILD", "false");
        command
    };
    let mut first = command().spawn().unwrap();
    let address = listening(&mut first);
    let body = r#"{"language":"python","code":"print(1)"}"#;
    let answer = request(
        &address,
        &format!(
            "POST /run HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let id = answer
        .split("\"id\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    first.kill().unwrap();
    first.wait().unwrap();

    let mut second = command().spawn().unwrap();
    let address = listening(&mut second);
    let get = format!("GET /status/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut status = request(&address, &get);
    for _ in 0..30_000 {
        if status.contains("\"error\"") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        status = request(&address, &get);
    }
    assert!(
        status.contains("cloude-initramfs build --language python"),
        "{status}"
    );
    Command::new("kill")
        .arg(second.id().to_string())
        .status()
        .unwrap();
    assert!(second.wait().unwrap().success());
}

#[test]
fn health_reports_a_full_disk_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let plain = startable(dir.path(), "cltest4");
    // Beyond RLIMIT_FSIZE, write(2) raises SIGXFSZ, or fails with EFBIG if the signal is ignored.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("CLOUDE_IMAGES_AUTO_BUILD", "false")
        .arg("--images")
        .arg(dir.path().join("images"))
        .stderr(Stdio::piped());
    let mut clouded = command.spawn().unwrap();
    let address = listening(&mut clouded);
    let pid = Pid::from_child(&clouded);
    let limit = |current| {
        let maximum = None;
        prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    let body = r#"{"language":"python","code":"print(1)"}"#;
    let run = format!(
        "POST /run HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    limit(Some(0));
    let refused = request(&address, &run);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let degraded = request(&address, health);
    assert!(degraded.starts_with("HTTP/1.1 503"), "{degraded}");
    assert!(
        degraded.contains("the job store cannot write"),
        "{degraded}"
    );

    limit(None);
    let mut answer = request(&address, health);
    while answer.starts_with("HTTP/1.1 503") {
        std::thread::sleep(std::time::Duration::from_millis(50));
        answer = request(&address, health);
    }
    let accepted = request(&address, &run);
    assert!(accepted.starts_with("HTTP/1.1 200"), "{accepted}");
    Command::new("kill")
        .arg(clouded.id().to_string())
        .status()
        .unwrap();
    assert!(clouded.wait().unwrap().success());
}

fn request(address: &str, text: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A field of /proc/PID/status.
fn status(child: &Child, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line[field.len()..]
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

/// Sends SIGTERM and waits.
fn terminated(child: &mut Child) -> std::process::ExitStatus {
    let pid = Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap()
}

/// [`startable`] with all files in a folder that every user may read.
fn startable_for_all(dir: &Path, bridge: &str) -> Command {
    let mut command = startable(dir, bridge);
    for path in [dir.to_owned(), dir.join("file")] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let languages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../languages");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(languages)
        .arg(dir)
        .status();
    assert!(copied.unwrap().success());
    command
        .env("LANGUAGES_CONFIG_PATH", dir.join("languages"))
        .env("CLOUDE_CACHE_DIR", dir.join("cache"));
    command
}

#[test]
fn root_becomes_the_configured_user_with_one_capability() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("left-by-root"), "").unwrap();
    // The account of the network file systems exists on every Linux.
    let mut child = startable_for_all(dir.path(), "cloudeuser0")
        .env("CLOUDE_USER", "nobody")
        .spawn()
        .unwrap();

    listening(&mut child);

    assert_eq!(status(&child, "Uid"), "65534\t65534\t65534\t65534");
    for set in ["CapEff", "CapPrm", "CapAmb"] {
        // CAP_NET_ADMIN is capability 12.
        assert_eq!(status(&child, set), "0000000000001000", "{set}");
    }
    let owner = state.join("left-by-root").metadata().unwrap().uid();
    assert_eq!(owner, 65534);
    // The network needs the capability when it is removed, too.
    assert!(terminated(&mut child).success());
    assert!(!Path::new("/sys/class/net/cloudeuser0").exists());
}

#[test]
fn a_user_without_access_is_refused_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let output = startable(dir.path(), "cloudeuser1")
        .env("CLOUDE_USER", "nobody")
        .env("CLOUDE_CACHE_DIR", dir.path().join("file/cache"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let file = dir.path().join("file").display().to_string();
    assert!(stderr(&output).contains(&file), "{}", stderr(&output));
    assert!(stderr(&output).contains("nobody"), "{}", stderr(&output));
}

#[test]
fn an_unknown_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = startable(dir.path(), "cloudeuser2")
        .env("CLOUDE_USER", "no-such-user")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("useradd"), "{}", stderr(&output));
}
