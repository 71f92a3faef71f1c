# Child processes that end in different ways.
import os
import sys

codes = []
for code in [None, 0, 3, "words", ValueError("a child's")]:
    child = os.fork()
    if child == 0:
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(codes)
if child == 0 and code is not None:
    if isinstance(code, Exception):
        sys.stderr = open(os.devnull, "w")
        raise code
    sys.exit(code)
