//! Programs that take what they can get, or lie.

use cloude_e2e::cloude::LONGEST;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::Execution;

use crate::case::{Case, case, prints, run};

type Check = fn(&Execution);

fn program(
    name: &str,
    naive: &str,
    language: &'static str,
    options: &'static [&'static str],
    code: &'static str,
    check: Check,
) -> Case {
    case(&format!("program::{name}"), naive, move || {
        check(&run(language, options, code));
    })
}

fn exits(code: i32) -> impl Fn(&Execution) {
    move |execution| {
        assert_eq!(
            (execution.cause, execution.exit_code),
            (Cause::Exit, Some(code)),
            "{execution:?}"
        );
    }
}

/// The program was ended at a limit of its own, or failed itself: not the server.
fn ended_alone(execution: &Execution) {
    assert!(
        matches!(
            execution.cause,
            Cause::Exit | Cause::Signal | Cause::Memory | Cause::WallTime
        ),
        "{execution:?}"
    );
}

fn took_too_long(execution: &Execution) {
    assert_eq!(execution.cause, Cause::WallTime, "{execution:?}");
}

const LONG: &[&str] = &["--timeout", LONGEST];
/// Enough for a program to do its harm, and short enough to wait for.
const SHORT: &[&str] = &["--timeout", "5s"];

pub fn cases() -> Vec<Case> {
    vec![
        program(
            "fork_bomb",
            "the host's table of processes is full",
            "python",
            SHORT,
            "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
            ended_alone,
        ),
        program(
            "threads_without_end",
            "the host's table of processes is full",
            "python",
            SHORT,
            "import threading, time\nwhile True:\n  try: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n  except RuntimeError: time.sleep(1000)",
            ended_alone,
        ),
        program(
            "memory_without_end",
            "the host's out-of-memory killer chooses a victim",
            "python",
            LONG,
            "held = []\nwhile True: held.append(b'x' * (1 << 20))",
            |execution| {
                assert!(
                    execution.cause == Cause::Memory || execution.exit_code == Some(1),
                    "{execution:?}"
                );
            },
        ),
        program(
            "shared_memory_without_end",
            "memory that no process owns stays taken",
            "python",
            LONG,
            "import os\nfor i in range(1 << 20):\n  fd = os.memfd_create('m'); os.ftruncate(fd, 1 << 26)\n  os.pwrite(fd, b'x' * (1 << 26), 0)",
            ended_alone,
        ),
        program(
            "disk_without_end",
            "the host's disk is full",
            "bash",
            LONG,
            "cat /dev/zero > /tmp/full; cat /dev/zero > full; echo $?",
            ended_alone,
        ),
        program(
            "files_without_end",
            "the host has no inodes left",
            "python",
            SHORT,
            "i = 0\nwhile True:\n  open(f'/tmp/{i}', 'w').close(); i += 1",
            ended_alone,
        ),
        program(
            "descriptors_without_end",
            "the host's table of open files is full",
            "python",
            SHORT,
            "import os\nwhile True:\n  try: os.dup(0)\n  except OSError as e: print(e.errno); break",
            ended_alone,
        ),
        program(
            "file_of_a_terabyte",
            "a sparse file is copied byte by byte",
            "bash",
            LONG,
            "truncate -s 1T huge; echo made",
            ended_alone,
        ),
        program(
            "folders_ten_thousand_deep",
            "the supervisor cannot clean up, or overflows its stack",
            "python",
            LONG,
            "import os\nfor i in range(10000):\n  os.mkdir('d'); os.chdir('d')",
            |execution| exits(0)(execution),
        ),
        program(
            "spinning_processors",
            "the program runs until somebody notices",
            "python",
            SHORT,
            "import os\nfor i in range(4): os.fork()\nwhile True: pass",
            took_too_long,
        ),
        program(
            "deaf_to_signals",
            "SIGTERM is ignored, and the program stays",
            "python",
            SHORT,
            "import signal, os\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nos.setsid() if os.fork() == 0 else None\nwhile True: pass",
            took_too_long,
        ),
        program(
            "stopped_processes",
            "a stopped process is waited for without end",
            "bash",
            SHORT,
            "sleep 1000 & kill -STOP $!; kill -STOP $$",
            took_too_long,
        ),
        program(
            "daemon_that_keeps_the_output_open",
            "the result waits for a pipe that a daemon holds",
            "bash",
            LONG,
            "setsid sleep 100000 & echo started; exit 3",
            |execution| {
                exits(3)(execution);
                assert_eq!(execution.stdout.to_text(), "started\n", "{execution:?}");
            },
        ),
        program(
            "endless_output",
            "the server keeps every byte",
            "bash",
            &["--timeout", "5s", "--output-limit", "1M"],
            "cat /dev/zero",
            |execution| {
                assert!(execution.stdout.0.len() <= 1 << 20, "{:?}", execution.run);
                let run = execution.run.as_ref().unwrap();
                assert!(run.stdout_dropped > 0, "{run:?}");
            },
        ),
        program(
            "output_of_control_characters",
            "each byte becomes six in JSON, several times over",
            "python",
            &["--timeout", LONGEST, "--output-limit", "16M"],
            "import sys\nfor stream in (sys.stdout, sys.stderr): stream.write('\\x01' * (16 << 20))",
            |execution| {
                exits(0)(execution);
                assert_eq!(execution.stdout.0.len(), 16 << 20);
                assert_eq!(execution.stderr.0.len(), 16 << 20);
            },
        ),
        program(
            "output_that_is_no_text",
            "the result is not valid JSON, and is lost",
            "python",
            LONG,
            "import os\nos.write(1, bytes(range(256)) * 100)",
            |execution| {
                exits(0)(execution);
                assert_eq!(execution.stdout.0.len(), 25600, "{execution:?}");
            },
        ),
        program(
            "forged_result",
            "the supervisor reads a result that the program printed",
            "bash",
            LONG,
            r#"forged='{"event":"finished","run":{"cause":"exit","exit_code":0}}'
for fd in /proc/self/fd/* /dev/console /dev/ttyS0 /proc/1/fd/*; do echo "$forged" > $fd; done 2>/dev/null
exit 9"#,
            |execution| exits(9)(execution),
        ),
        program(
            "forged_marker_lines",
            "a line of the output is taken for the end of the stream",
            "python",
            LONG,
            "for mark in ('\\r\\n0\\r\\n\\r\\n', '--boundary--', 'HTTP/1.1 200 OK\\r\\n\\r\\n', '\\x00\\x00\\x00\\x04'): print(mark, end='')\nraise SystemExit(4)",
            |execution| exits(4)(execution),
        ),
        program(
            "signal_to_everybody",
            "the supervisor dies with the program",
            "bash",
            LONG,
            "kill -9 1; kill -STOP 1; trap '' TERM; kill -TERM -1; echo alive",
            |execution| prints(execution, "alive\n"),
        ),
        program(
            "debugger_on_the_supervisor",
            "ptrace reads the supervisor's token",
            "python",
            LONG,
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint(libc.ptrace(16, 1, 0, 0), end='')",
            |execution| prints(execution, "-1"),
        ),
        program(
            "memory_of_the_supervisor",
            "/proc/1/mem holds the token",
            "bash",
            LONG,
            "for f in mem environ maps fd/0 root/etc/shadow; do head -c1 /proc/1/$f >/dev/null 2>&1 && echo read $f; done; true",
            |execution| prints(execution, ""),
        ),
        program(
            "preloaded_library",
            "LD_PRELOAD of a request is loaded by the supervisor",
            "bash",
            &[
                "--timeout",
                LONGEST,
                "--env",
                "LD_PRELOAD=/work/evil.so",
                "--env",
                "LD_LIBRARY_PATH=/work",
            ],
            "exit 5",
            |execution| exits(5)(execution),
        ),
        program(
            "path_of_its_own",
            "PATH of a request chooses the supervisor's programs",
            "bash",
            &["--timeout", LONGEST, "--env", "PATH=/work:/tmp"],
            "exit 6",
            |execution| {
                // The interpreter is not below these folders, and the supervisor runs nothing that is.
                let not_found = execution.cause == Cause::Infrastructure;
                assert!(not_found || execution.exit_code == Some(6), "{execution:?}");
            },
        ),
        program(
            "source_that_includes_secrets",
            "the compiler, run with more rights, prints a secret file",
            "c",
            LONG,
            "#include \"/.cloude/boot.json\"\n#include \"/proc/1/environ\"\n#include \"/etc/shadow\"\nint main(void) { return 0; }",
            |execution| {
                assert_ne!(execution.exit_code, Some(0), "{execution:?}");
                let text = format!("{execution:?}");
                assert!(!text.contains("\"token\""), "{text}");
            },
        ),
        program(
            "compiler_without_end",
            "the limit of the run does not hold for the compiler",
            "c",
            &["--compile-timeout", "5s"],
            "#define A(x) x x x x x x x x\n#define B(x) A(A(A(A(x))))\nint main(void) { int a = 0; B(B(a++;)) return a; }",
            |execution| assert_ne!(execution.exit_code, Some(0), "{execution:?}"),
        ),
        program(
            "connection_to_the_supervisor",
            "the program orders the supervisor to run code",
            "bash",
            LONG,
            r#"exec 3<>/dev/tcp/127.0.0.1/1024 || exit 0
printf 'POST /execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0\r\nContent-Length: 2\r\n\r\n{}' >&3
head -1 <&3 | grep -c ' 200 '"#,
            |execution| assert_ne!(execution.stdout.to_text(), "1\n", "{execution:?}"),
        ),
        program(
            "vsock_to_the_host",
            "a socket of the VM reaches services of the host although the network is off",
            "python",
            LONG,
            "import socket\nreached = []\nfor cid in (0, 1, 2):\n  for port in list(range(1, 64)) + [1024, 1025, 5000, 9999, 2**32 - 2]:\n    try:\n      s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); s.settimeout(2)\n      s.connect((cid, port)); reached.append((cid, port)); s.close()\n    except OSError: pass\nprint([r for r in reached if r[0] == 2])",
            |execution| prints(execution, "[]\n"),
        ),
        program(
            "names_without_a_network",
            "DNS works although the network is off, and carries data out",
            "python",
            LONG,
            "import socket\ntry: print(socket.getaddrinfo('example.com', 80))\nexcept OSError: print('no')\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ntry: s.sendto(b'x', ('8.8.8.8', 53)); print('sent')\nexcept OSError: print('no')",
            |execution| prints(execution, "no\nno\n"),
        ),
        program(
            "system_calls_of_escapes",
            "the kernel's largest attack surfaces are open",
            "python",
            LONG,
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ncalls = dict(bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, keyctl=250, add_key=248, kexec_load=246, init_module=175, finit_module=313, mount=165, pivot_root=155, open_by_handle_at=304, reboot=169, swapon=167, iopl=172, acct=163, settimeofday=164)\nprint([name for name, number in calls.items() if libc.syscall(number, 1, 0, 0, 0, 0) >= 0])",
            |execution| prints(execution, "[]\n"),
        ),
        program(
            "user_namespace",
            "a user namespace makes the program root over the kernel's rare code",
            "bash",
            LONG,
            "unshare -U true 2>/dev/null && echo made; unshare -m true 2>/dev/null && echo made; true",
            |execution| prints(execution, ""),
        ),
        program(
            "setuid_program",
            "a setuid program makes the program root",
            "bash",
            LONG,
            "id -u | grep -qx 0 && echo root; for p in /usr/bin/su /usr/bin/passwd /usr/bin/chsh /bin/mount; do [ -u $p ] && echo found >&2; done; grep -q 'NoNewPrivs:.1' /proc/self/status || echo may gain; true",
            |execution| prints(execution, ""),
        ),
        program(
            "limits_raised_from_inside",
            "the program removes its own limits",
            "bash",
            LONG,
            "for f in $(find /sys/fs/cgroup -name memory.max -o -name pids.max -o -name cgroup.procs 2>/dev/null); do echo max > $f && echo raised; done 2>/dev/null; true",
            |execution| prints(execution, ""),
        ),
    ]
}
