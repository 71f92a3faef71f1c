# corpus: exit_code = 42
import sys

sys.exit(42)
