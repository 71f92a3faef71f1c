# corpus: args = ["one", "-x", "é"]
import sys

print(sys.orig_argv)
print(sys.executable, sys._base_executable)
print(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
