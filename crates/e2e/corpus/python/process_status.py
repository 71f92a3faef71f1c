# The program leads a session of its own, below the first process.
import os

print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid(), os.getppid())
try:
    os.open("/dev/tty", os.O_RDWR)
except OSError as error:
    print(error.strerror)
try:
    os.tcgetpgrp(0)
except OSError as error:
    print(error.strerror)

# Fields of /proc/self/status.
KEEP = ("Name", "Umask", "State", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cap", "Cpus_allowed_list", "CoreDumping", "NStgid", "FDSize")
for line in open("/proc/self/status"):
    if line.startswith(KEEP[:8]) or line.startswith(("Cap", "CoreDumping")):
        print(line.strip())
for name in ("oom_score_adj", "coredump_filter", "personality", "timerslack_ns", "loginuid", "cgroup"):
    try:
        print(name, open("/proc/self/" + name).read().strip())
    except OSError as error:
        print(name, error.strerror)

import getpass
import os
import pwd

print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.path.expanduser("~"))
print(pwd.getpwuid(os.getuid()).pw_name, getpass.getuser())
