# A program starts without children, and without CPU time of any.
import os
import resource

try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError as error:
    print(error.strerror)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
print(open("/proc/thread-self/children").read() if os.path.exists("/proc/thread-self/children") else "not known")

# corpus: exit_code = 2
import atexit
import os
import sys
import threading

atexit.register(print, "atexit")
child = os.fork()
if child == 0:
    print("child", os.getppid() != 0, threading.current_thread().name)
    sys.exit(3)
_, status = os.waitpid(child, 0)
print("parent", os.waitstatus_to_exitcode(status))
try:
    os.wait()
except ChildProcessError:
    print("no other children")
sys.exit(2)
