# A hook that leaves no trace of what ended the program.
# corpus: exit_code = 1
import sys


def hook(kind, value, trace):
    print("ended by", kind.__name__, value)
    for name in ["last_type", "last_value", "last_traceback", "last_exc"]:
        sys.__dict__.pop(name, None)


sys.excepthook = hook
raise ValueError("of the program")
