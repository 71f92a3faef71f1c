# What the three descriptors are.
import fcntl
import os
import stat

for number in range(3):
    status = os.fstat(number)
    flags = fcntl.fcntl(number, fcntl.F_GETFL)
    print(number, stat.S_ISFIFO(status.st_mode), stat.S_ISREG(status.st_mode), stat.S_ISCHR(status.st_mode), flags & os.O_ACCMODE, bool(flags & os.O_NONBLOCK), bool(flags & os.O_APPEND), fcntl.fcntl(number, fcntl.F_GETFD))
