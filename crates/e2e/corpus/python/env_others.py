# The interpreter reads these variables when it starts.
# corpus: env = { PYTHONOPTIMIZE = "1", PYTHONIOENCODING = "latin-1:replace", PYTHONNOUSERSITE = "1", PYTHONINTMAXSTRDIGITS = "700", PYTHONSAFEPATH = "1", PYTHONWARNINGS = "always", PYTHONDEVMODE = "1", TZ = "XYZ-3" }
import faulthandler
import sys
import time

assert False, "not checked"
print(__debug__, sys.flags)
print(sys.stdout.encoding, sys.stdin.errors, "é ∑")
print(sys.get_int_max_str_digits(), sys.path[0], sys.warnoptions, faulthandler.is_enabled())
print(time.tzname, time.timezone, time.localtime(0).tm_hour)
open("main.py")
