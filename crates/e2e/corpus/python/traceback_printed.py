# Tracebacks and stacks that the program prints itself.
import sys
import traceback


def inner():
    traceback.print_stack(file=sys.stdout)
    raise RuntimeError("here")


def outer():
    inner()


try:
    outer()
except RuntimeError:
    print(traceback.format_exc())
    print([frame.name for frame in traceback.extract_stack()])
    print(len(traceback.extract_tb(sys.exc_info()[2])))
print(sys.exc_info())
