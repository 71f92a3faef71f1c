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
