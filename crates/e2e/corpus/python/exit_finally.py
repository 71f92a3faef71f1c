# Cleanups on the way out, in their order.
# corpus: exit_code = 4
import sys


class Guard:
    def __enter__(self):
        print("enter")

    def __exit__(self, kind, value, trace):
        print("leave", kind.__name__, value.code)


def generator():
    try:
        yield 1
    finally:
        print("generator closed")


g = generator()
next(g)
try:
    with Guard():
        sys.exit(4)
finally:
    print("finally")
