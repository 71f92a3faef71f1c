# SystemExit in a callback.
import atexit
import sys

atexit.register(print, "the rest is still called")
atexit.register(sys.exit, 5)
