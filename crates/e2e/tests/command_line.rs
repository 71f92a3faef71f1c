//! `cloude` against a real backend: exit codes, streams, and executions that run without their client.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude::{self, LONGEST, describe};
use cloude_e2e::host;

fn bash(backend: &Backend, options: &[&str], code: &str) -> Command {
    let run = ["run", "-l", "bash", "-c", code, "--timeout", LONGEST];
    // clap refuses an option that is given twice.
    let run = if options.contains(&"--timeout") {
        &run[..5]
    } else {
        &run[..]
    };
    cloude::command(backend, &[run, options].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(count: u64) -> Vec<u8> {
    (1..=count)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect()
}

#[test]
fn exit_codes_and_streams_are_those_of_the_program() {
    // Program, options, exit code, standard output, and the start of standard error.
    const TABLE: &[(&str, &[&str], i32, &str, &str)] = &[
        ("echo out; echo err >&2", &[], 0, "out\n", "err\n"),
        ("exit 1", &[], 1, "", ""),
        ("printf x; exit 42", &[], 42, "x", ""),
        ("exit 255", &[], 255, "", ""),
        (
            "kill -SEGV $$",
            &[],
            139,
            "",
            "cloude: the program was terminated by signal 11 (SIGSEGV, segmentation fault)\n",
        ),
        (
            "kill -TERM $$",
            &[],
            143,
            "",
            "cloude: the program was terminated by signal 15 (SIGTERM, terminated)\n",
        ),
        (
            "exec sleep 1000000",
            &["--timeout", "1s"],
            124,
            "",
            "cloude: the program was killed at its time limit, after ",
        ),
        ("echo", &["--memory", "1M"], 2, "", "cloude: --memory: "),
        (
            "echo",
            &["--user", "nobody-has-this-name"],
            125,
            "",
            "cloude: the program could not be run: ",
        ),
    ];
    let backend = Backend::start("");
    for (code, options, exit, stdout, stderr) in TABLE {
        let output = bash(&backend, options, code).output().unwrap();
        println!("{code:?} {options:?} -> {}", describe(&output));
        assert_eq!(
            output.status.code(),
            Some(*exit),
            "{code}: {}",
            describe(&output)
        );
        assert_eq!(text(&output.stdout), *stdout, "{code}");
        let is_whole = stderr.is_empty() || stderr.ends_with('\n');
        let found = text(&output.stderr);
        let fits = if is_whole {
            found == *stderr
        } else {
            found.starts_with(stderr)
        };
        assert!(fits, "{code}: {found:?} instead of {stderr:?}");
    }
    backend.stop();
}

#[test]
fn every_byte_arrives_on_its_stream() {
    let backend = Backend::start("");
    let code = r#"for i in {0..255}; do printf "\\x$(printf %02x $i)"; done | tee /dev/stderr"#;
    let output = bash(&backend, &[], code).output().unwrap();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(output.stdout, all, "{}", describe(&output));
    assert_eq!(output.stderr, all, "{}", describe(&output));
    backend.stop();
}

/// 64 MiB, or as many as CLOUDE_OUTPUT_MIB says.
#[test]
fn a_large_output_arrives_whole() {
    let mib = std::env::var("CLOUDE_OUTPUT_MIB").map_or(64, |mib| mib.parse::<u64>().unwrap());
    let bytes = mib << 20;
    // The agent sends the first half of what is kept as it is written, and holds the second half in the guest's memory.
    let limit = 2 * bytes;
    let overrides = format!(
        "limits.max_output_bytes = {limit}\nlimits.result_bytes_in_flight = {}",
        2 * limit
    );
    let backend = Backend::start(&overrides);
    let limit = limit.to_string();
    let code = format!("seq 1 1000000000 | head -c {bytes}");
    let mut child = bash(&backend, &["--output-limit", &limit], &code)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut expected, mut number, mut read) = (Vec::new(), String::new(), 0_u64, 0);
    while output.read_until(b'\n', &mut line).unwrap() > 0 {
        number += 1;
        expected = format!("{number}\n");
        read += line.len() as u64;
        assert!(
            expected.as_bytes().starts_with(&line),
            "line {number} is {:?}",
            text(&line)
        );
        assert!(
            line.len() == expected.len() || read == bytes,
            "line {number} is cut"
        );
        line.clear();
    }
    let mut notes = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut notes)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{notes}");
    assert_eq!((read, notes.as_str()), (bytes, ""), "{expected}");
    backend.stop();
}

#[test]
fn a_reader_that_leaves_ends_the_program_silently() {
    let backend = Backend::start("");
    let mut child = bash(&backend, &[], "exec seq 1 1000000000")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // Dropped with its pipe after one line.
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "1\n");
    let mut notes = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut notes)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141), "{notes}");
    assert_eq!(notes, "");
    // The one VM is free again.
    let output = bash(&backend, &[], "echo next").output().unwrap();
    assert_eq!(text(&output.stdout), "next\n", "{}", describe(&output));
    backend.stop();
}

#[test]
fn ctrl_c_cancels_and_exits_with_130() {
    let backend = Backend::start("vm.max_concurrent = 1");
    let holding = cloude::start_holding(&backend);
    cloude::interrupt(holding);
    // It held the only VM.
    let output = bash(&backend, &[], "echo next").output().unwrap();
    assert_eq!(text(&output.stdout), "next\n", "{}", describe(&output));
    backend.stop();
}

#[test]
fn a_backend_that_is_down_is_an_error_with_the_way_out() {
    let backend = Backend::start("");
    let mut command = bash(&backend, &[], "true");
    backend.stop();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = text(&output.stderr);
    assert!(
        error.starts_with("cloude: cannot connect to the backend at http://127.0.0.1:"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_file_that_is_missing_or_bad_runs_nothing() {
    let backend = Backend::start("");
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("x.sh");
    std::fs::write(&binary, b"echo \xff").unwrap();
    let binary = binary.to_str().unwrap();
    for (arguments, part) in [
        (&["run", "missing.sh"][..], "cannot read missing.sh"),
        (&["run", binary], "not UTF-8 at byte 5"),
        (
            &["run", "-l", "bash", "-c", "x", "--file", "/nowhere"],
            "cannot read /nowhere",
        ),
        (&["run", "-l", "cobol-85", "-c", "x"], "--language: "),
    ] {
        let output = cloude::run(&backend, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            describe(&output)
        );
        let error = text(&output.stderr);
        assert!(
            error.contains(part) && error.lines().count() == 1,
            "{arguments:?}: {error}"
        );
    }
    backend.stop();
}

#[test]
fn a_revoked_key_is_refused_and_ends_what_runs() {
    let backend = Backend::start("");
    let created = cloude::run(&backend, &["key", "create"]);
    let key = text(&created.stdout).trim().to_owned();
    let id = key.split('_').nth(1).unwrap();
    let with_key = |code: &str| {
        let mut command = bash(&backend, &[], code);
        command.env("CLOUDE_API_KEY", &key);
        command
    };
    let output = with_key("echo before").output().unwrap();
    assert_eq!(text(&output.stdout), "before\n", "{}", describe(&output));
    let mut child = with_key("echo up; exec sleep 1000000")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");

    let revoked = cloude::run(&backend, &["key", "revoke", id]);
    assert!(revoked.status.success(), "{}", describe(&revoked));

    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125), "{error}");
    let output = with_key("echo after").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    assert!(
        text(&output.stderr).contains("was revoked"),
        "{}",
        describe(&output)
    );
    assert!(output.stdout.is_empty());
    backend.stop();
}

#[test]
fn artifacts_of_a_program_are_saved_with_their_modes() {
    use std::os::unix::fs::PermissionsExt as _;
    let backend = Backend::start("");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    std::fs::write(folder.path().join("in/name"), "world").unwrap();
    let (sent, saved) = (folder.path().join("in"), folder.path().join("out"));
    let code = "mkdir -p out; printf 'hello %s' \"$(cat in/name)\" >out/a; chmod 755 out/a; exit 3";
    let options = [
        "--file",
        sent.to_str().unwrap(),
        "-a",
        "out/**",
        "--artifact-dir",
        saved.to_str().unwrap(),
    ];
    let output = bash(&backend, &options, code).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", describe(&output));
    let artifact = saved.join("out/a");
    assert_eq!(std::fs::read_to_string(&artifact).unwrap(), "hello world");
    let mode = std::fs::metadata(&artifact).unwrap().permissions().mode();
    assert_eq!(mode & 0o700, 0o700);
    backend.stop();
}

/// Starts a program that does not wait for its client, and returns its id.
fn detached(backend: &Backend, options: &[&str], code: &str) -> String {
    let output = bash(backend, &[&["--detach"], options].concat(), code)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    text(&output.stdout).trim().to_owned()
}

#[test]
fn a_detached_execution_is_listed_followed_and_has_a_result() {
    let backend = Backend::start("");
    let id = detached(
        &backend,
        &["--label", "job=nightly"],
        "seq 1 1000; echo e >&2; exit 7",
    );
    let other = detached(&backend, &["--label", "job=hourly"], "true");
    let cloude = |arguments: &[&str]| -> Output { cloude::run(&backend, arguments) };

    let followed = cloude(&["logs", "-f", &id]);
    assert_eq!(followed.stdout, lines(1000), "{}", describe(&followed));
    assert_eq!(text(&followed.stderr), "e\n");
    let result = cloude(&["result", &id]);
    assert_eq!(result.status.code(), Some(7), "{}", describe(&result));
    assert_eq!(result.stdout, lines(1000));
    let logs = cloude(&["logs", &id]);
    assert_eq!(logs.stdout, lines(1000), "{}", describe(&logs));
    let listed = cloude(&["ps", "-q", "--label", "job=nightly"]);
    assert_eq!(
        text(&listed.stdout),
        format!("{id}\n"),
        "{}",
        describe(&listed)
    );
    let all = cloude(&["ps", "-q"]);
    assert_eq!(
        text(&all.stdout),
        format!("{other}\n{id}\n"),
        "{}",
        describe(&all)
    );
    backend.stop();
}

#[test]
fn a_cancelled_execution_has_the_result_130() {
    let backend = Backend::start("");
    let id = detached(&backend, &[], "echo up; exec sleep 1000000");
    host::wait_for("the program runs", || {
        let logs = cloude::run(&backend, &["logs", &id]);
        (text(&logs.stdout) == "up\n").then_some(())
    });
    let cancelled = cloude::run(&backend, &["cancel", &id]);
    assert_eq!(
        text(&cancelled.stdout),
        "cancelled\n",
        "{}",
        describe(&cancelled)
    );
    let result = cloude::run(&backend, &["result", &id]);
    assert_eq!(result.status.code(), Some(130), "{}", describe(&result));
    assert_eq!(text(&result.stdout), "up\n");
    backend.stop();
}

#[test]
fn logs_follow_misses_no_byte_over_a_restart() {
    let mut backend = Backend::start("");
    let id = detached(&backend, &[], "seq 1 100000");
    let result = cloude::run(&backend, &["result", &id]);
    assert!(result.status.success(), "{}", describe(&result));
    // A reader that has not taken everything when the backend dies.
    let mut child = cloude::command(&backend, &["logs", "-f", &id, "--retry-for", "10m"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut bytes = Vec::new();
    output.read_until(b'\n', &mut bytes).unwrap();
    backend.kill();
    backend.restart();
    output.read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(bytes == lines(100_000), "{} bytes", bytes.len());
    backend.stop();
}
