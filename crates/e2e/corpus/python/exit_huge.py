# An exit status that does not fit a C long.
# corpus: exit_code = 255
import sys

sys.exit(2**70)
