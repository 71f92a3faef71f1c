# corpus: exit_code = 255
import sys

sys.exit(-1)
