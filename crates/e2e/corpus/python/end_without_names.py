# A program that takes away the names it was given, as it ends with a code of its own.
# corpus: exit_code = 3
import sys

for name in [name for name in globals() if name.startswith("__")]:
    del globals()[name]
sys.exit(3)
