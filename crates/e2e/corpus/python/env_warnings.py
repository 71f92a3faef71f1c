# corpus: env = { PYTHONWARNINGS = "error" }
# corpus: exit_code = 1
import sys
import warnings

print(sys.warnoptions)
warnings.warn("an error now")
