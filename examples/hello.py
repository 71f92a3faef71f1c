"""What a program sees of the machine that was made for it alone."""

import os
import platform
import socket
import time

memory_kib = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1])
uptime = time.clock_gettime(time.CLOCK_BOOTTIME)

print(f"Hello from Python {platform.python_version()}!")
print(f"  kernel     {platform.system()} {platform.release()}")
print(f"  host name  {socket.gethostname()}")
print(f"  machine    {os.cpu_count()} CPU, {memory_kib // 1024} MiB of memory")
print(f"  processes  {sum(name.isdigit() for name in os.listdir('/proc'))}, this one is number {os.getpid()}")
print(f"  age        the kernel started {uptime:.2f} s ago, for this program, and ends with it")
