# corpus: exit_code = 1
import atexit
import sys

atexit.register(lambda: print("atexit after the traceback", sys.exc_info()))
raise LookupError("from main")
