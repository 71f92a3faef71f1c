import os

open("file.txt", "w").close()
os.mkdir("folder")
print(oct(os.stat("file.txt").st_mode), oct(os.stat("folder").st_mode))
print(oct(os.umask(0o77)), oct(os.umask(0)))

import os
import resource

for name in sorted(name for name in dir(resource) if name.startswith("RLIMIT_")):
    # These two are what the kernel has for the machine's memory.
    if name not in ("RLIMIT_NPROC", "RLIMIT_SIGPENDING"):
        print(name, resource.getrlimit(getattr(resource, name)))
print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getparam(0))
print(sorted(os.sched_getaffinity(0)), os.cpu_count())
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
try:
    files = [open("/dev/null") for _ in range(20)]
except OSError as error:
    print(error.strerror)
