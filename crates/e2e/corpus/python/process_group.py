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
