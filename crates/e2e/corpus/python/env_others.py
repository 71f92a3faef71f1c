# corpus: env = { PYTHONNOUSERSITE = "1", PYTHONINTMAXSTRDIGITS = "700", PYTHONSAFEPATH = "1" }
import sys

print(sys.dont_write_bytecode, sys.flags.no_user_site, sys.get_int_max_str_digits(), sys.flags.safe_path, sys.path[0])
