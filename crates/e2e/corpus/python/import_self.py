# The program imports its own file, which makes a second module beside __main__.
import sys

print("running as", __name__)
if __name__ == "__main__":
    import main

    print(main is sys.modules["__main__"], main.__name__, main.__spec__.name)

# importlib finds the main module, and cannot reload it.
import importlib
import pkgutil
import sys

print([module.name for module in pkgutil.iter_modules(["."])])
print(importlib.import_module("__main__") is sys.modules["__main__"])
try:
    importlib.reload(sys.modules["__main__"])
except Exception as error:
    print(type(error).__name__, error)
try:
    importlib.util.find_spec("__main__")
except ValueError as error:
    print(error)
