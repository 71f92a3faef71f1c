//! `disk_bytes`: the limit of all files in the work directory and in /tmp.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use cloude_protocol::agent::{Cause, ExecuteRequest, File, StageResult};
use common::*;

const LIMIT: u64 = 1 << 20;

fn run(mut request: ExecuteRequest) -> (StageResult, Response) {
    request.disk_bytes = Some(LIMIT);
    let response = agent_with_disk(&[]).execute(&request);
    (response.result.run.clone().unwrap(), response)
}

#[test]
fn work_directory_and_tmp_share_the_limit() {
    for (first, second) in [(".", "/tmp"), ("/tmp", "."), ("/tmp", "/tmp")] {
        let write = |place: &str, name: &str| format!("head -c 600000 /dev/zero > {place}/{name}");
        let script = format!(
            "{} && echo one && {} && echo two",
            write(first, "a"),
            write(second, "b")
        );

        let (result, response) = run(sh(&script));

        assert_eq!(response.run.stdout.to_text(), "one\n");
        assert_eq!((result.cause, result.exit_code), (Cause::Disk, Some(1)));
        let message = result.message.unwrap();
        assert!(message.contains("1048576 bytes"), "{message}");
    }
}

#[test]
fn files_below_the_limit_are_written() {
    let (result, _) = run(sh("head -c 1000000 /dev/zero > large; exit 4"));

    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(4)));
}

#[test]
fn a_program_that_copes_with_a_full_disk_exits() {
    let (result, _) = run(sh("head -c 2000000 /dev/zero > large; exit 0"));

    assert_eq!((result.cause, result.exit_code), (Cause::Exit, Some(0)));
}

#[test]
fn a_compiler_can_fill_the_disk() {
    let mut request = sh("echo never");
    request.compile = Some(stage(&["sh", "-c", "head -c 2000000 /dev/zero > large"]));
    request.disk_bytes = Some(LIMIT);

    let result = agent_with_disk(&[]).execute(&request).result;

    assert_eq!(result.compile.unwrap().cause, Cause::Disk);
}

#[test]
fn files_of_the_request_must_fit() {
    let mut request = sh("echo never");
    request.disk_bytes = Some(LIMIT);
    request.files.push(File {
        path: "large".into(),
        content: "x".repeat(2_000_000).into(),
        mode: None,
    });

    let answer = agent_with_disk(&[]).post(&serde_json::to_vec(&request).unwrap());

    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.error(),
        "files: \"large\" does not fit into disk_bytes; raise it"
    );
}

#[test]
fn the_limit_leaves_the_mounts_flags() {
    let script =
        "grep -E ' (/tmp|[^ ]*/work) tmpfs' /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1-3";

    let (_, response) = run(sh(script));

    let flags = "rw,nosuid,nodev\n";
    assert_eq!(response.run.stdout.to_text(), flags.repeat(2));
}
