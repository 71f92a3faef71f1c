# corpus: env = { PYTHONOPTIMIZE = "1" }
import sys

assert False, "not checked"
print(__debug__, sys.flags.optimize)
