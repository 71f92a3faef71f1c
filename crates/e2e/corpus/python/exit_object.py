# corpus: exit_code = 1
import sys

sys.exit(["not", "a", "number"])
