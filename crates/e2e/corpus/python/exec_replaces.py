# corpus: exit_code = 8
import os
import sys

print("before")
os.execv(sys.executable, [sys.executable, "-c", "import sys; print(sys.argv, sys.stdin.read()); sys.exit(8)", "given"])
