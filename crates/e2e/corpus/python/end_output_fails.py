# Buffered output that cannot be written at the end sets the exit code.
# corpus: exit_code = 120
import os
import sys

sys.stdout = open(1, "w", closefd=False)
os.close(1)
print("lost")
