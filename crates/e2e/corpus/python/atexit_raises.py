import atexit


class Callback:
    def __call__(self):
        raise ValueError("in a callback")

    def __repr__(self):
        return "<the callback>"


atexit.register(print, "still called")
atexit.register(Callback())

# SystemExit in a callback.
import atexit
import sys

atexit.register(print, "the rest is still called")
atexit.register(sys.exit, 5)
