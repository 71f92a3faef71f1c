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
