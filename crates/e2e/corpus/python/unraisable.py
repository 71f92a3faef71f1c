import sys


class Thing:
    def __del__(self):
        raise ValueError("in __del__")


sys.unraisablehook = lambda args: print("unraisable:", args.exc_type.__name__, args.exc_value)
thing = Thing()
del thing
print("goes on")
