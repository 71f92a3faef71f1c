//! The rights of a program: its user, set-user-ID programs, system calls.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::os::unix::fs::PermissionsExt;

use cloude_protocol::agent::{Cause, ExecuteRequest, File};
use common::*;

fn output_of(agent: &Agent, request: &ExecuteRequest) -> String {
    let response = agent.execute(request);
    let run = response.result.run.unwrap();
    assert_eq!(run.cause, Cause::Exit, "{run:?}");
    response.run.stdout.to_text()
}

fn unconfined(mut request: ExecuteRequest) -> ExecuteRequest {
    request.unconfined = true;
    request
}

#[test]
fn programs_are_root_only_on_request() {
    let who = sh("echo $(id -u) $(id -g) $(id -G); stat -c %u .");
    assert_eq!(output_of(&agent(), &who), "1000 1000 1000\n1000\n");
    assert_eq!(output_of(&agent(), &as_root(who)), "0 0 0\n0\n");
}

#[test]
fn a_requested_user_owns_its_files_and_work_directory() {
    let mut request = sh("id -u; stat -c %u . given; echo x > made && cat made");
    request.user = Some("4242:7".into());
    request.files.push(File {
        path: "given".into(),
        content: "x".into(),
        mode: None,
    });
    assert_eq!(output_of(&agent(), &request), "4242\n4242\n4242\nx\n");
}

#[test]
fn the_compiler_is_of_the_same_user() {
    let mut request = sh("cat made");
    request.compile = Some(stage(&["sh", "-c", "id -u > made"]));
    assert_eq!(output_of(&agent(), &request), "1000\n");
    assert_eq!(output_of(&agent(), &as_root(request)), "0\n");
}

#[test]
fn an_unknown_user_is_explained() {
    let mut request = sh("echo ran");
    request.user = Some("eve".into());
    let run = agent().execute(&request).result.run.unwrap();
    assert_eq!(run.cause, Cause::Infrastructure);
    assert_eq!(
        run.message.unwrap(),
        "the user \"eve\" is not in the image's /etc/passwd: name one that is, or a numeric id"
    );
}

#[test]
fn a_set_user_id_program_gains_nothing() {
    // `id` of root's with the bit: without no_new_privs its effective uid is 0.
    for confined in [true, false] {
        let agent = agent();
        let id = agent.directory.path().join("id");
        std::fs::copy("/usr/bin/id", &id).unwrap();
        std::fs::set_permissions(&id, PermissionsExt::from_mode(0o4755)).unwrap();
        let script = format!("{} -u; grep ^NoNewPrivs /proc/self/status", id.display());
        let request = if confined {
            sh(&script)
        } else {
            unconfined(sh(&script))
        };
        assert_eq!(output_of(&agent, &request), "1000\nNoNewPrivs:\t1\n");
    }
}

/// Makes each system call with zeros, and prints its name and errno.
const CALLS: &str = r#"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments, *[0] * (6 - len(arguments)))
    print(name, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()])
call("mount", 165)
call("umount2", 166)
call("pivot_root", 155)
call("open_tree", 428)
call("fsopen", 430)
call("unshare user", 272, 0x10000000)
call("unshare files", 272, 0x400)
call("clone user", 56, 0x10000000 | 17)
call("clone3", 435)
call("setns", 308, -1)
call("init_module", 175)
call("finit_module", 313, -1)
call("kexec_load", 246)
call("reboot", 169)
call("bpf", 321)
call("perf_event_open", 298)
call("userfaultfd", 323)
call("io_uring_setup", 425)
call("add_key", 248)
call("keyctl", 250)
call("swapon", 167)
call("open_by_handle_at", 304)
call("iopl", 172, 3)
call("vsock socket", 41, 40, 1)
call("unix socket", 41, 1, 1)
call("personality", 135, 0xffffffff)
call("page zero", 135, 0x100000)
call("ptrace", 101, 16, -1)
call("getppid", 110)
call("newer than the filter", 467)
call("x32 getppid", 0x40000000 | 110)
"#;

#[test]
fn system_calls_of_administration_are_refused_even_to_root() {
    let mut request = request(&["/usr/bin/python3", "-I", "calls.py"]);
    request.files.push(File {
        path: "calls.py".into(),
        content: CALLS.into(),
        mode: None,
    });
    let expected = "mount EPERM\numount2 EPERM\npivot_root EPERM\nopen_tree EPERM\nfsopen EPERM\n\
        unshare user EPERM\nunshare files done\nclone user EPERM\nclone3 ENOSYS\nsetns EPERM\ninit_module EPERM\n\
        finit_module EPERM\nkexec_load EPERM\nreboot EPERM\nbpf EPERM\nperf_event_open EPERM\nuserfaultfd EPERM\n\
        io_uring_setup ENOSYS\nadd_key EPERM\nkeyctl EPERM\nswapon EPERM\nopen_by_handle_at EPERM\niopl EPERM\n\
        vsock socket EAFNOSUPPORT\nunix socket done\npersonality done\npage zero EPERM\nptrace ESRCH\ngetppid done\n\
        newer than the filter ENOSYS\nx32 getppid ENOSYS\n";
    assert_eq!(output_of(&agent(), &request), expected);
    assert_eq!(output_of(&agent(), &as_root(request)), expected);
}

#[test]
fn user_namespaces_are_for_unconfined_programs() {
    let script = sh("unshare -U true 2>/dev/null && echo made || echo refused");
    assert_eq!(output_of(&agent(), &script), "refused\n");
    assert_eq!(output_of(&agent(), &as_root(script.clone())), "refused\n");
    assert_eq!(output_of(&agent(), &unconfined(script.clone())), "made\n");
    // Root could raise the limits of its cgroup there.
    let root = as_root(unconfined(script));
    assert_eq!(output_of(&agent(), &root), "refused\n");
}
