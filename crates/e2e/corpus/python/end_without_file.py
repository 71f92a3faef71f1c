# corpus: exit_code = 4
import sys

del __file__, __cached__
sys.exit(4)
