//! Programs that are root in their VM.

use cloude_e2e::cloude::LONGEST;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::Execution;

use crate::case::{Case, case, prints, run, shared};

const ROOT: &[&str] = &["--timeout", LONGEST, "--user", "root"];

fn root(
    name: &str,
    naive: &str,
    language: &'static str,
    code: &'static str,
    check: fn(&Execution),
) -> Case {
    case(&format!("root::{name}"), naive, move || {
        check(&run(language, ROOT, code));
    })
}

/// The program ended its own VM, or could not.
fn ended_its_own_vm(execution: &Execution) {
    assert!(
        matches!(
            execution.cause,
            Cause::Exit | Cause::GuestPanic | Cause::Signal
        ),
        "{execution:?}"
    );
}

pub fn cases() -> Vec<Case> {
    vec![
        root(
            "supervisor_killed",
            "a killed supervisor leaves the program without limits",
            "bash",
            "for s in KILL STOP SEGV; do kill -$s 1; done; kill -9 -1; echo alive",
            |execution| prints(execution, "alive\n"),
        ),
        root(
            "supervisor_debugged",
            "root reads the supervisor's token with ptrace",
            "bash",
            "for f in mem environ maps auxv; do head -c1 /proc/1/$f 2>/dev/null | grep -q . && echo read $f; done; true",
            |execution| prints(execution, ""),
        ),
        root(
            "token_searched",
            "the token of the supervisor lies in a file, the environment or the command line",
            "bash",
            r#"[ -e /.cloude/boot.json ] && echo configuration
for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/cmdline; do
  case $f in /proc/$$/*) continue;; esac
  tr '\0' '\n' 2>/dev/null <$f | grep -qiE '[0-9a-f]{64}' && echo "token in $f"
done; true"#,
            |execution| prints(execution, ""),
        ),
        root(
            "limits_raised",
            "root raises its own memory limit",
            "bash",
            "for f in $(find /sys/fs/cgroup /proc/1/root/sys/fs/cgroup -name '*.max' 2>/dev/null); do echo max > $f && echo raised $f; done 2>/dev/null; mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted; mkdir -p /tmp/c; mount -t cgroup2 c /tmp/c 2>/dev/null && echo mounted; true",
            |execution| prints(execution, ""),
        ),
        root(
            "kernel_replaced",
            "kexec or a module puts root's code below the supervisor",
            "python",
            "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint([name for name, number in dict(kexec_load=246, init_module=175, finit_module=313, kexec_file_load=320).items() if libc.syscall(number, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() not in (1, 38)])",
            |execution| prints(execution, "[]\n"),
        ),
        root(
            "physical_memory",
            "root reads the kernel's memory, with the token",
            "bash",
            "for f in /dev/mem /dev/kmem /dev/port /proc/kcore; do head -c1 $f 2>/dev/null | grep -q . && echo read $f; done; true",
            |execution| prints(execution, ""),
        ),
        root(
            "core_pattern_of_the_host",
            "a crash runs root's program on the host",
            "bash",
            "echo '|/tmp/evil' > /proc/sys/kernel/core_pattern; ulimit -c unlimited; sh -c 'kill -SEGV $$'; true",
            |execution| {
                assert_eq!(execution.exit_code, Some(0), "{execution:?}");
                let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
                assert!(!pattern.contains("evil"), "{pattern}");
            },
        ),
        root(
            "clock_set",
            "the time of the host or of other VMs changes",
            "bash",
            "date -s @1000000000 >/dev/null 2>&1; true",
            |execution| {
                assert_eq!(execution.cause, Cause::Exit, "{execution:?}");
                let now = std::time::SystemTime::now();
                let age = now.duration_since(std::time::UNIX_EPOCH).unwrap();
                assert!(age.as_secs() > 1_500_000_000);
            },
        ),
        root(
            "reboot",
            "the VM starts again with the program in it, or hangs",
            "bash",
            "echo b > /proc/sysrq-trigger; reboot -f; poweroff -f; halt -f; true",
            ended_its_own_vm,
        ),
        root(
            "ports_of_the_machine",
            "a port of the VM's chipset ends the worker for all VMs",
            "c",
            "#include <sys/io.h>\nint main(void) { if (iopl(3)) return 1; for (int p = 0; p < 65536; p++) if (p < 0x3f8 || p > 0x3ff) outb(0xff, p); return 0; }",
            ended_its_own_vm,
        ),
        root(
            "console_flood",
            "the console fills a log, a disk or a pipe, and the VM waits for it",
            "bash",
            "for i in 1 2 3 4; do head -c 64K /dev/zero | tr '\\0' x > /dev/console; done 2>/dev/null; echo done",
            |execution| {
                assert_eq!(execution.cause, Cause::Exit, "{execution:?}");
                let log = shared().log().len();
                assert!(log < 4 << 20, "clouded's log has {log} bytes");
            },
        ),
        root(
            "random_numbers_without_end",
            "the host's random numbers are used up, or a thread of the worker is",
            "bash",
            "head -c 64M /dev/urandom >/dev/null; head -c 1M /dev/hwrng >/dev/null 2>&1; echo done",
            |execution| prints(execution, "done\n"),
        ),
        case(
            "root::template_poisoned",
            "a program changes the interpreter of the next tenant",
            || {
                let poison = "import os, glob\nfor f in glob.glob('/usr/lib/python3*/os.py') + ['/bin/sh', '/etc/passwd']:\n  try: open(f, 'w').write('poison')\n  except OSError: pass\nopen('/tmp/mark', 'w').write('x')\nprint('poisoned')";
                for options in [ROOT, &["--timeout", LONGEST]] {
                    let execution = run("python", options, poison);
                    prints(&execution, "poisoned\n");
                }
                let look = "import os, subprocess\nprint(os.path.exists('/tmp/mark'), subprocess.run(['/bin/sh', '-c', 'echo well'], capture_output=True, text=True).stdout, end='')";
                let execution = run("python", &["--timeout", LONGEST], look);
                prints(&execution, "False well\n");
            },
        ),
    ]
}
