"""What the program's own module is."""
import sys

print(__name__, __doc__, __package__, __spec__, __cached__ if "__cached__" in globals() else "no __cached__")
print(type(__loader__), getattr(__loader__, "name", None), getattr(__loader__, "path", None))
print(type(__builtins__).__name__, __builtins__.__name__)
main = sys.modules["__main__"]
print(main.__dict__ is globals(), main.__name__, repr(main))
print("frame name:", sys._getframe().f_code.co_name)

# The main module has only the names that every program starts with.
print(sorted(globals()))
print(sorted(dir()))
print(locals() is globals())
print({name: value for name, value in globals().items() if name in ("__doc__", "__package__", "__spec__", "__annotations__")})
