# How the three streams are set up.
import os
import sys

for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.isatty(), stream.fileno())
    print(type(stream.buffer).__name__, stream.buffer.mode, getattr(stream.buffer, "raw", None).__class__.__name__)
print(sys.__stdin__ is sys.stdin, sys.__stdout__ is sys.stdout, sys.__stderr__ is sys.stderr)
print([os.get_blocking(number) for number in range(3)], [os.get_inheritable(number) for number in range(3)])

# The file types of descriptors 0 to 2.
import fcntl
import os
import stat

for number in range(3):
    status = os.fstat(number)
    flags = fcntl.fcntl(number, fcntl.F_GETFL)
    print(number, stat.S_ISFIFO(status.st_mode), stat.S_ISREG(status.st_mode), stat.S_ISCHR(status.st_mode), flags & os.O_ACCMODE, bool(flags & os.O_NONBLOCK), bool(flags & os.O_APPEND), fcntl.fcntl(number, fcntl.F_GETFD))
