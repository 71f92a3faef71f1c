//! The walls inside of a VM: what a program may do as its user, and what it may not even as root.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use cloude_e2e::backend::Backend;
use cloude_e2e::cloude;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, Status};

fn python(backend: &Backend, options: &[&str], code: &str) -> Execution {
    let arguments = [
        "run",
        "--json",
        "-l",
        "python",
        "-c",
        code,
        "--timeout",
        cloude::LONGEST,
    ];
    let all = [&arguments, options].concat();
    cloude::execution(&cloude::command(backend, &all).output().unwrap())
}

fn bash(backend: &Backend, options: &[&str], code: &str) -> Execution {
    cloude::bash(
        backend,
        &[&["--timeout", cloude::LONGEST], options].concat(),
        code,
    )
}

/// What an ordinary program does as root in a container, done by the unprivileged user.
const ORDINARY: &str = r#"
import getpass, os, pwd, socket, tempfile
print(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name, getpass.getuser())
home = os.path.expanduser("~")
print(home)
for folder in (home, ".", "/tmp", "/var/tmp", "/dev/shm"):
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x")
socket.create_server(("127.0.0.1", 80)).close()
master, slave = os.openpty()
os.write(master, b"line\n")
print(os.read(slave, 10))
for path in ("/etc/passwd", "/usr/bin/python3", "/work/../x"):
    try:
        open(path, "ab")
        print("wrote", path)
    except OSError as error:
        print(type(error).__name__)
"#;

#[test]
fn a_program_is_an_ordinary_user_with_a_name_and_a_home() {
    let backend = Backend::start("");
    let execution = python(&backend, &[], ORDINARY);
    assert_eq!(
        execution.stdout.to_text(),
        "1000 1000 cloude cloude\n/home/cloude\nb'line\\n'\n\
         PermissionError\nPermissionError\nPermissionError\n",
        "{execution:?}"
    );
    backend.stop();
}

/// Run as root. Prints a line for each success.
const CGROUP: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None)
CGROUP = "/sys/fs/cgroup"
if os.getuid() != 0 or not os.path.exists(f"{CGROUP}/memory.max"):
    print("nothing to attack")
def write(path, value):
    try:
        with open(path, "w") as file:
            file.write(value)
        print("wrote", value, "to", path)
    except OSError:
        pass
def attack():
    for name in ("memory.max", "pids.max", "cgroup.procs", "cgroup.subtree_control", "cgroup.kill", "memory.oom.group"):
        for value in ("max", "0", str(os.getpid())):
            write(f"{CGROUP}/{name}", value)
    try:
        os.mkdir(f"{CGROUP}/mine")
        print("made a cgroup")
    except OSError:
        pass
    remount = 0x20
    for kind, flags in ((b"cgroup2", remount), (None, remount | 0x1000)):
        if libc.mount(b"none", CGROUP.encode(), kind, flags, None) == 0:
            print("remounted")
    if libc.umount2(CGROUP.encode(), 2) == 0:
        print("unmounted")
    os.makedirs("/tmp/other", exist_ok=True)
    if libc.mount(b"none", b"/tmp/other", b"cgroup2", 0, None) == 0:
        for name in ("memory.max", "pids.max"):
            write(f"/tmp/other/{name}", "max")
    if "0::/\n" not in open("/proc/self/cgroup").read():
        print("sees other cgroups:", open("/proc/self/cgroup").read())
attack()
# As root of a user namespace, where the request allows one.
try:
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNS | os.CLONE_NEWCGROUP)
    attack()
except OSError:
    pass
sys.exit(5)
"#;

#[test]
fn root_cannot_change_the_limits_of_its_cgroup() {
    let backend = Backend::start("");
    for options in [&["--user", "root"][..], &["--user", "root", "--unconfined"]] {
        let execution = python(&backend, options, CGROUP);
        assert_eq!(execution.stdout.to_text(), "", "{options:?}: {execution:?}");
        assert_eq!(execution.exit_code, Some(5), "{options:?}: {execution:?}");
    }
    backend.stop();
}

/// Run as root. Prints a line for each success.
const ATTACK: &str = r#"
import ctypes, os, shutil, signal, sys
if os.getuid() != 0:
    print("not root")
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    if libc.syscall(number, *arguments) >= 0:
        print(name)
call("attached to init", 101, 16, 1, 0, 0)
call("seized init", 101, 0x4206, 1, 0, 0)
call("loaded a module", 175, b"\x7fELF", 4, b"")
call("loaded a module", 313, os.open("/bin/true", os.O_RDONLY), b"", 0)
call("loaded a kernel", 246, 0, 0, 0, 0)
call("loaded a kernel", 320, os.open("/bin/true", os.O_RDONLY), -1, 0, b"", 0)
call("has I/O ports", 172, 3)
call("set the clock", 227, 0, (ctypes.c_long * 2)(0, 0))
call("rebooted", 169, 0xFEE1DEAD, 672274793, 0x01234567, 0)
call("mounted", 165, b"none", b"/tmp", b"tmpfs", 0, 0)
for path, flags in (
    ("/dev/mem", os.O_RDWR), ("/dev/port", os.O_RDWR), ("/proc/kcore", os.O_RDONLY), ("/proc/1/mem", os.O_RDWR),
    ("/proc/sysrq-trigger", os.O_WRONLY), ("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    ("/sys/kernel/uevent_helper", os.O_WRONLY), ("/proc/1/root/.cloude/agent", os.O_RDWR),
):
    try:
        os.open(path, flags)
        print("opened", path)
    except OSError:
        pass
for name in ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGSEGV", "SIGBUS", "SIGABRT"):
    os.kill(1, getattr(signal, name))
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    print("runs in real time")
except OSError:
    pass
# A set-user-ID program of root's adds nothing to another user.
shutil.copy("/usr/bin/id", "/usr/bin/id-of-root")
os.chmod("/usr/bin/id-of-root", 0o4755)
child = os.fork()
if child == 0:
    os.setgid(1000)
    os.setuid(1000)
    os.execv("/usr/bin/id-of-root", ["id", "-u"])
os.waitpid(child, 0)
sys.exit(6)
"#;

#[test]
fn root_attacks_neither_the_agent_nor_the_kernel() {
    let backend = Backend::start("");
    for options in [&["--user", "root"][..], &["--user", "root", "--unconfined"]] {
        let execution = python(&backend, options, ATTACK);
        assert_eq!(
            execution.stdout.to_text(),
            "1000\n",
            "{options:?}: {execution:?}"
        );
        assert_eq!(
            (execution.cause, execution.exit_code),
            (Cause::Exit, Some(6)),
            "{options:?}: {execution:?}"
        );
    }
    backend.stop();
}

#[test]
fn namespaces_of_users_are_for_unconfined_programs() {
    let backend = Backend::start("");
    let code = "import os\ntry: os.unshare(os.CLONE_NEWUSER)\nexcept OSError: print('refused')\nelse: print('made')";
    for (options, expected) in [(&[][..], "refused\n"), (&["--unconfined"], "made\n")] {
        let execution = python(&backend, options, code);
        assert_eq!(execution.stdout.to_text(), expected, "{execution:?}");
    }
    backend.stop();
}

#[test]
fn a_user_that_the_image_lacks_is_explained() {
    let backend = Backend::start("");
    let output = cloude::run(
        &backend,
        &["run", "-l", "bash", "-c", "echo ran", "--user", "eve"],
    );
    assert_eq!(
        output.status.code(),
        Some(125),
        "{}",
        cloude::describe(&output)
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("the user \"eve\" is not in the image's /etc/passwd"),
        "{stderr}"
    );
    backend.stop();
}

/// Starts threads until one is refused.
const THREADS: &str = r#"
import threading
threading.stack_size(65536)
never = threading.Event()
try:
    for count in range(100000):
        threading.Thread(target=never.wait, daemon=True).start()
except RuntimeError as error:
    print(count > 500, error)
    import os
    os._exit(3)
"#;

#[test]
fn the_limit_of_processes_is_in_the_result() {
    let backend = Backend::start("");
    let execution = python(&backend, &[], THREADS);
    assert_eq!(
        (execution.cause, execution.exit_code),
        (Cause::Processes, Some(3)),
        "{execution:?}"
    );
    assert_eq!(
        execution.stdout.to_text(),
        "True can't start new thread\n",
        "{execution:?}"
    );
    let message = execution.run.unwrap().message.unwrap();
    assert!(
        message.contains("1 processes or threads were refused"),
        "{message}"
    );
    backend.stop();
}

#[test]
fn a_fork_bomb_ends_with_its_program() {
    let backend = Backend::start("");
    for user in ["root", "1000"] {
        let code = "echo up; bomb() { bomb | bomb & }; bomb; while :; do :; done";
        let execution = cloude::bash(&backend, &["--timeout", "20", "--user", user], code);
        // The agent has answered. Whether memory, processes or time ran out first is a matter of the machine.
        assert_eq!(execution.status, Status::Done, "{execution:?}");
        assert!(
            matches!(execution.cause, Cause::WallTime | Cause::Memory),
            "{execution:?}"
        );
    }
    backend.stop();
}

#[test]
fn a_full_disk_is_an_error_of_the_program_that_filled_it() {
    let backend = Backend::start("");
    let code = "cat /dev/zero > big; rm big; cat /dev/zero > /tmp/big; rm /tmp/big; echo went on";
    let execution = bash(&backend, &[], code);
    assert_eq!(execution.stdout.to_text(), "went on\n", "{execution:?}");
    let errors = execution.stderr.to_text();
    assert_eq!(
        errors.matches("No space left on device").count(),
        2,
        "{errors}"
    );
    backend.stop();
}

#[test]
fn files_that_take_all_memory_leave_the_agent_alive() {
    let backend = Backend::start("");
    let code = "for folder in /work /tmp /dev/shm /run /var/tmp /; do cat /dev/zero > $folder/big; done; \
                i=0; while mkdir /dev/shm/$i; do i=$((i + 1)); done; echo went on";
    let execution = bash(&backend, &["--user", "root"], code);
    assert_eq!(execution.status, Status::Done, "{execution:?}");
    let went_on = execution.stdout.to_text() == "went on\n";
    assert!(execution.cause == Cause::Memory || went_on, "{execution:?}");
    backend.stop();
}
