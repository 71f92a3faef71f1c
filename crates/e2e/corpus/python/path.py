import sys

for entry in sys.path:
    print(repr(entry))
print([getattr(hook, "__qualname__", None) for hook in sys.path_hooks])
print([getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path])
print(sys.flags.safe_path, sys.pycache_prefix, sys.dont_write_bytecode)
