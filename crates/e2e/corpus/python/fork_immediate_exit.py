# The child leaves through os._exit, or by an exception.
import os

for leave in (lambda: os._exit(5), lambda: 1 / 0):
    child = os.fork()
    if child == 0:
        leave()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
