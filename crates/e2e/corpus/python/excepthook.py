# corpus: exit_code = 1
import sys

print(sys.excepthook is sys.__excepthook__, sys.unraisablehook is sys.__unraisablehook__, sys.displayhook is sys.__displayhook__, sys.breakpointhook is sys.__breakpointhook__)
print(hasattr(sys, "last_value"), hasattr(sys, "ps1"))


def hook(kind, value, trace):
    print("hook:", kind.__name__, value, trace.tb_lineno, trace.tb_next)


sys.excepthook = hook
raise OSError("seen by the hook")
