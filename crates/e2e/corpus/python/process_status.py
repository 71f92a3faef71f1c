# What the kernel says of the process.
KEEP = ("Name", "Umask", "State", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cap", "Cpus_allowed_list", "CoreDumping", "NStgid", "FDSize")
for line in open("/proc/self/status"):
    if line.startswith(KEEP[:8]) or line.startswith(("Cap", "CoreDumping")):
        print(line.strip())
for name in ("oom_score_adj", "coredump_filter", "personality", "timerslack_ns", "loginuid", "cgroup"):
    try:
        print(name, open("/proc/self/" + name).read().strip())
    except OSError as error:
        print(name, error.strerror)
