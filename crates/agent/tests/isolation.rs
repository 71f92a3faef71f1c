//! The isolation of a program from the agent and the guest's kernel, and its environment.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;

use cloude_protocol::agent::{Cause, ExecuteRequest, File};
use cloude_protocol::boot::ImageConfig;
use common::*;

fn stdout_of(agent: &Agent, request: &ExecuteRequest) -> String {
    let response = agent.execute(request);
    let run = response.result.run.unwrap();
    assert_eq!(run.cause, Cause::Exit, "{run:?}");
    response.run.stdout.to_text()
}

fn stdout(script: &str) -> String {
    stdout_of(&agent(), &sh(script))
}

fn stdout_of_root(script: &str) -> String {
    stdout_of(&agent(), &as_root(sh(script)))
}

#[test]
fn the_program_has_three_descriptors() {
    // ls opens the fourth for the listing.
    assert_eq!(stdout("exec ls /proc/self/fd"), "0\n1\n2\n3\n");
}

#[test]
fn the_program_sees_only_its_stages_processes() {
    // With builtins of the shell: another process would be in the list.
    let seen = stdout(
        "for p in /proc/[0-9]*; do read -r name < $p/comm; echo $name; done > seen; sort -u seen",
    );
    assert_eq!(seen, "cloude-agent\nsh\n");
    // The process with the agent's name is init, PID 1 of the stage.
    assert_eq!(
        stdout("grep -l cloude-agent /proc/[0-9]*/comm"),
        "/proc/1/comm\n"
    );
}

#[test]
fn init_cannot_be_read_traced_or_killed() {
    let script = "cat /proc/1/environ 2>&1 >/dev/null | grep -c denied; cat /proc/1/fd/* 2>&1 | grep -vc denied; for f in /proc/1/fd/*; do (echo x > $f) 2>/dev/null && echo opened; done; \
                  head -c 1 /proc/1/mem 2>&1 | grep -c denied; \
                  for signal in KILL STOP TERM SEGV BUS ABRT; do kill -$signal 1; done; echo alive";
    assert_eq!(stdout_of_root(script), "1\n0\n1\nalive\n");
}

#[test]
fn the_agents_directory_is_empty() {
    let agent = agent();
    let hidden = agent.directory.path().join("hidden");
    let script = format!(
        "ls {0} 2>&1; umount {0} 2>/dev/null; cat {0}/boot.json 2>/dev/null; echo end",
        hidden.display()
    );
    assert_eq!(stdout_of(&agent, &as_root(sh(&script))), "end\n");
    assert!(hidden.join("boot.json").exists());
}

#[test]
fn roots_capabilities_are_bounded() {
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
    // SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP
    let expected = "CapInh: 0000000000000000\nCapPrm: 00000000a80405fb\nCapEff: 00000000a80405fb\n\
                    CapBnd: 00000000a80405fb\nCapAmb: 0000000000000000\n";
    assert_eq!(
        stdout_of_root("grep ^Cap /proc/self/status").replace('\t', " "),
        expected
    );
}

#[test]
fn others_have_no_capabilities() {
    let none = "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
                CapBnd: 0000000000000000\nCapAmb: 0000000000000000\n";
    for user in ["", "nobody"] {
        let caps = stdout_of(&agent_for(user), &sh("grep ^Cap /proc/self/status"));
        assert_eq!(caps.replace('\t', " "), none);
    }
}

#[test]
fn root_cannot_mount_nor_change_the_kernel() {
    let script = "mount -t tmpfs x /mnt 2>/dev/null && echo mounted; \
                  (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo core_pattern; \
                  (echo b > /proc/sysrq-trigger) 2>/dev/null && echo sysrq; \
                  (mkdir /sys/fs/cgroup/x) 2>/dev/null && echo cgroup; \
                  (echo $$ > /sys/fs/cgroup/cgroup.procs) 2>/dev/null && echo moved; \
                  (echo x > /sys/kernel/uevent_helper) 2>/dev/null && echo helper; \
                  mknod m c 1 1 2>/dev/null && head -c 1 m >/dev/null 2>&1 && echo memory; echo end";
    // Without the filter of system calls, too: each is a wall of its own.
    for unconfined in [false, true] {
        let request = ExecuteRequest {
            unconfined,
            ..as_root(sh(script))
        };
        assert_eq!(stdout_of(&agent(), &request), "end\n");
    }
}

#[test]
fn root_of_a_user_namespace_gains_nothing() {
    let agent = agent();
    let hidden = agent.directory.path().join("hidden");
    let script = format!(
        "unshare -Urm sh -c 'umount {0}; umount /proc/sys; cat {0}/boot.json; echo x > /proc/sys/kernel/core_pattern' 2>/dev/null; echo end",
        hidden.display()
    );
    let request = ExecuteRequest {
        unconfined: true,
        ..sh(&script)
    };
    assert_eq!(stdout_of(&agent, &request), "end\n");
    assert!(
        !std::fs::read_to_string("/proc/sys/kernel/core_pattern")
            .unwrap()
            .starts_with("x\n")
    );
}

#[test]
fn the_program_runs_as_the_images_user() {
    let agent = agent_for("daemon");
    let mut request =
        sh("id -u; id -g; id -G; stat -c %u:%g:%a file sub sub/script .; echo $HOME; ./sub/script");
    let script = File {
        path: "sub/script".into(),
        content: "#!/bin/sh\nset -e\necho ran > made\ncat made\n".into(),
        mode: Some(0o700),
    };
    request.files = vec![
        File {
            path: "file".into(),
            content: "x".into(),
            mode: None,
        },
        script,
    ];
    let seen = stdout_of(&agent, &request);
    assert_eq!(
        seen,
        "1\n1\n1\n1:1:644\n1:1:755\n1:1:700\n1:1:755\n/usr/sbin\nran\n"
    );
}

#[test]
fn a_numeric_user_needs_no_etc_passwd_entry() {
    let answer = agent_for("12345").execute(&sh("id -u; id -g; echo $HOME"));
    assert_eq!(answer.run.stdout.to_text(), "12345\n0\n/\n");
}

#[test]
fn the_environment_is_that_of_image_and_request_alone() {
    let image = ImageConfig {
        env: vec!["A=1".into(), "B=2".into(), "PATH=/usr/bin:/bin".into()],
        ..ImageConfig::default()
    };
    let mut request = as_root(request(&["env"]));
    request.env = BTreeMap::from([
        ("B".to_owned(), "two words".to_owned()),
        ("C".to_owned(), String::new()),
    ]);
    let seen = stdout_of(&agent_with(&image), &request);
    assert_eq!(
        seen,
        "A=1\nB=two words\nC=\nHOME=/root\nPATH=/usr/bin:/bin\nUSER=root\n"
    );
}

#[test]
fn arguments_are_passed_unchanged() {
    let seen = stdout_of(
        &agent(),
        &request(&["printf", "[%s]", "", "a b", "*", "é\n", "$HOME"]),
    );
    assert_eq!(seen, "[][a b][*][é\n][$HOME]");
}

#[test]
fn the_working_directory_defaults_to_the_work_directory() {
    let here = agent();
    let work = std::fs::canonicalize(here.directory.path().join("work")).unwrap();
    assert_eq!(
        stdout_of(&here, &request(&["pwd"])),
        format!("{}\n", work.display())
    );
    let mut request = sh("pwd; cat here");
    request.files = vec![File {
        path: "sub/here".into(),
        content: "found".into(),
        mode: None,
    }];
    request.working_dir = Some("sub".into());
    let there = agent();
    let work = std::fs::canonicalize(there.directory.path().join("work")).unwrap();
    assert_eq!(
        stdout_of(&there, &request),
        format!("{}/sub\nfound", work.display())
    );
}

#[test]
fn signals_session_and_limits_are_reset() {
    let seen = stdout(
        "while read -r l; do case $l in SigIgn*|SigBlk*) echo $l;; esac; done < /proc/self/status; cat /proc/self/oom_score_adj; umask; ulimit -c",
    );
    let expected = "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\n0\n0022\n0\n";
    assert_eq!(seen.replace('\t', " "), expected);
    assert_eq!(
        stdout("[ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leader"),
        "leader\n"
    );
}
