# corpus: env = { PYTHONDEVMODE = "1" }
import faulthandler
import sys

print(sys.flags.dev_mode, faulthandler.is_enabled(), sys.warnoptions)
open("main.py")
