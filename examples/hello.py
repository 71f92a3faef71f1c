"""Prints the machine that a program runs on: a micro-VM that is made for it alone."""

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
print(f"  age        the kernel has run for {uptime:.2f} s, and ends with this program")
