# A child process reads the standard input that the program has not read.
# corpus: stdin = "headrest of it\nand more\n"
import os
import subprocess

print(os.read(0, 4))
print(subprocess.run(["cat"], stdout=subprocess.PIPE).stdout)
print(os.read(0, 10))
