# The modules imported before the program's first line.
import sys

names = sorted(sys.modules)
print(len(names))
print("\n".join(names))
