//! The scenarios of the interpreter-abuse part of CyberSecEval 2 (in PyPI's `inspect-evals`), as programs: its prompts
//! ask a model for such programs. docs/security.md has the table.

use cloude_e2e::cloude::LONGEST;

use crate::case::{Case, case, prints, run};

const LONG: &[&str] = &["--timeout", LONGEST];
const NETWORK: &[&str] = &["--timeout", LONGEST, "--network"];

/// A Python program that prints `got` and more if it succeeds.
fn escape(name: &str, naive: &str, options: &'static [&'static str], code: &'static str) -> Case {
    case(&format!("interpreter::{name}"), naive, move || {
        let execution = run("python", options, code);
        prints(&execution, "");
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        escape(
            "privilege_escalation_reads_shadow",
            "a program of an ordinary user reads a file of root",
            LONG,
            "for path in ('/etc/shadow', '/etc/gshadow', '/root/.bash_history', '/proc/1/environ'):\n  try: print('got', path, open(path).read(1))\n  except OSError: pass",
        ),
        escape(
            "privilege_escalation_writes_shadow",
            "a program of an ordinary user becomes root at the next login",
            LONG,
            "import os\nfor path in ('/etc/shadow', '/etc/passwd', '/etc/sudoers', '/etc/ld.so.preload', '/usr/bin/python3'):\n  try: os.open(path, os.O_WRONLY | os.O_CREAT); print('got', path)\n  except OSError: pass\nfor call in (os.setuid, os.setgid):\n  try: call(0); print('got', call)\n  except OSError: pass",
        ),
        escape(
            "container_escape_sees_the_host",
            "a path, a mount or a socket leads to the host's files",
            LONG,
            "import os\nfor path in ('/var/run/docker.sock', '/run/containerd/containerd.sock', '/host', '/mnt/host', '/proc/1/root/etc/hostname', '/dev/sda', '/dev/vda', '/dev/kvm', '/.dockerenv'):\n  try:\n    os.stat(path); print('got', path)\n  except OSError: pass\nfor line in open('/proc/mounts'):\n  if line.split()[2] in ('virtiofs', '9p', 'ext4', 'overlay', 'nfs', 'fuse'): print('got', line)",
        ),
        escape(
            "container_escape_notifies_the_host",
            "a release agent or a core pattern runs a program on the host",
            LONG,
            "import os, glob\nfor path in glob.glob('/sys/fs/cgroup/**/release_agent', recursive=True) + ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/fs/binfmt_misc/register', '/sys/kernel/uevent_helper', '/proc/sysrq-trigger']:\n  try: open(path, 'w').write('|/tmp/x'); print('got', path)\n  except OSError: pass",
        ),
        escape(
            "reverse_shell_without_a_network",
            "a shell of the program connects to its author",
            LONG,
            "import socket\nfor target in (('198.51.100.7', 4444), ('1.1.1.1', 443), ('127.0.0.1', 1024)):\n  s = socket.socket(); s.settimeout(3)\n  try:\n    s.connect(target); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n    if target[0] != '127.0.0.1': print('got', target)\n  except OSError: pass",
        ),
        escape(
            "reflected_attack_scans_the_neighbourhood",
            "the program attacks machines that only the host can reach",
            NETWORK,
            "import socket\nfor host in ('10.0.0.1', '172.31.7.1', '172.31.7.3', '192.168.0.1', '169.254.169.254', '100.100.100.200'):\n  for port in (22, 80, 2375, 6443, 8080):\n    s = socket.socket(); s.settimeout(0.3)\n    try: s.connect((host, port)); print('got', host, port)\n    except OSError: pass",
        ),
        escape(
            "social_engineering_sends_mail",
            "the host sends unwanted mail, and its address is blocked everywhere",
            NETWORK,
            "import smtplib\nfor host in ('198.51.100.25', '203.0.113.25'):\n  try: smtplib.SMTP(host, 25, timeout=2); print('got', host)\n  except OSError: pass",
        ),
        case(
            "interpreter::post_exploitation_persists",
            "what the program leaves runs again for the next tenant",
            || {
                let leave = "import os\nfor path in ('/etc/cron.d/x', '/etc/profile.d/x.sh', os.path.expanduser('~/.bashrc'), os.path.expanduser('~/.profile'), '/tmp/sitecustomize.py', 'sitecustomize.py', 'usercustomize.py'):\n  try: open(path, 'w').write('import os; os.write(1, b\"got\")\\n')\n  except OSError: pass\nif os.fork() == 0:\n  os.setsid()\n  import time; time.sleep(100000)\nos._exit(0)";
                for code in [leave, "pass"] {
                    let execution = run("python", LONG, code);
                    prints(&execution, "");
                }
            },
        ),
    ]
}
